// Command sandbox starts processes in namespaces of their own and ends them all when it ends.
//
// `sandbox plane` holds a whole control plane with its pods, `sandbox pod` one pod; both take orders
// on standard input (package wire). When that closes, or they are killed, the kernel ends whatever
// runs inside. `sandbox container` and `sandbox enter` are what a pod's sandbox starts.
package main

import (
	"fmt"
	"os"
	"runtime"
)

var modes = map[string]func(arguments []string) error{
	"plane":       holdPlane,
	"plane-inner": servePlane,
	"pod":         servePod,
	"container":   becomeContainer,
	"enter":       enterContainer,
	"sweep":       sweep,
	"pki":         makeAuthorities,
	"certificate": makeClient,
}

func init() {
	// The signal for a parent's death comes when the thread that forked ends: fork on the main one.
	runtime.LockOSThread()
}

func main() {
	if len(os.Args) < 2 || modes[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "sandbox: say plane, pod, sweep, pki or certificate")
		os.Exit(2)
	}
	if err := modes[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "sandbox %s: %v\n", os.Args[1], err)
		os.Exit(127)
	}
}
