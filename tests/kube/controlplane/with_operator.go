//go:build operator

package main

import "rayml.test/controlplane/operator"

func init() {
	commands["operator"] = operator.Command
}
