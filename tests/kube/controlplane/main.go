// Command kubeplane is a Kubernetes control plane in one binary, with a kubelet that runs pods as
// processes of this machine.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"

	"rayml.test/controlplane/kubelet"
)

// commands maps the name of a component to what makes its command.
var commands = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kubelet":                 kubelet.Command,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
}

func main() {
	if len(os.Args) < 2 {
		fail("say which component to run")
	}
	name := os.Args[1]
	os.Args = append([]string{name}, os.Args[2:]...)
	if name == "etcd" {
		etcdmain.Main(os.Args)
		return
	}
	make, known := commands[name]
	if !known {
		fail(fmt.Sprintf("no component is called %q", name))
	}
	os.Exit(cli.Run(make()))
}

func fail(reason string) {
	fmt.Fprintln(os.Stderr, "kubeplane:", reason)
	os.Exit(2)
}
