// Package kubelet is a kubelet for several nodes at once whose containers are processes of this
// machine: each pod has a network namespace with an address on one bridge, each container its own
// file system, memory and processes.
package kubelet

import (
	"context"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// Settings says where a kubelet finds what it needs.
type Settings struct {
	Folder     string // the plane's folder: settings, sockets, logs and the pods' files
	Sandbox    string // the program `sandbox`
	Address    string // the bridge's address with the length of the prefix
	Kubeconfig string
}

// Command is the command `kubelet`.
func Command() *cobra.Command {
	var settings Settings
	command := &cobra.Command{
		Use:          "kubelet",
		Short:        "Run pods as processes of this machine",
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return run(ctx, settings)
		},
	}
	flags := command.Flags()
	flags.StringVar(&settings.Folder, "folder", "", "the plane's folder")
	flags.StringVar(&settings.Sandbox, "sandbox", "", "the program that holds pods")
	flags.StringVar(&settings.Address, "address", "", "the bridge's address with the length of its prefix")
	flags.StringVar(&settings.Kubeconfig, "kubeconfig", "", "the kubeconfig to reach the apiserver with")
	return command
}

func run(ctx context.Context, settings Settings) error {
	config, err := clientcmd.BuildConfigFromFlags("", settings.Kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	k, err := newKubelet(settings, client)
	if err != nil {
		return err
	}
	klog.Info("the kubelet starts")
	return k.run(ctx)
}
