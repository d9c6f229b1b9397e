package operator

import (
	"context"
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/events"
)

// ownPods selects what KubeRay keeps in its cache: a pod without a node type is none of its business.
const ownPods = labelNodeType + " in (" + string(head) + "," + string(worker) + "," + string(redisCleanup) + ")"

// Command is `operator`: it serves RayClusters until it is told to stop.
func Command() *cobra.Command {
	var kubeconfig, namespace string
	command := &cobra.Command{
		Use:          "operator",
		Short:        "A double of KubeRay's operator, for tests",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(command *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(command.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return serve(ctx, kubeconfig, namespace)
		},
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "the kubeconfig file of an identity with KubeRay's rights")
	command.Flags().StringVar(&namespace, "namespace", metav1.NamespaceAll, "the only namespace to serve")
	_ = command.MarkFlagRequired("kubeconfig") // fails only for a flag that is not there
	return command
}

func serve(ctx context.Context, kubeconfig, namespace string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("read the kubeconfig %s: %w", kubeconfig, err)
	}
	config.QPS, config.Burst, config.UserAgent = 100, 200, operatorName
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: kube.EventsV1()})
	if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		return fmt.Errorf("record events: %w", err)
	}
	defer broadcaster.Shutdown()
	serving, informed, err := newController(ctx, config, kube, namespace)
	if err != nil {
		return err
	}
	serving.events = broadcaster.NewRecorder(scheme.Scheme, "raycluster-controller")
	serving.run(ctx, informed)
	return nil
}

// newController returns a controller whose caches are filling, and what tells when they are full.
func newController(
	ctx context.Context, config *rest.Config, kube *kubernetes.Clientset, namespace string,
) (*controller, []cache.InformerSynced, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, nil, fmt.Errorf("make a client for RayClusters: %w", err)
	}
	clusters := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, namespace, nil)
	objects := informers.NewSharedInformerFactoryWithOptions(kube, 0, informers.WithNamespace(namespace))
	pods := informers.NewSharedInformerFactoryWithOptions(kube, 0, informers.WithNamespace(namespace),
		informers.WithTweakListOptions(func(options *metav1.ListOptions) { options.LabelSelector = ownPods }))

	created := &controller{
		kube:          kube,
		client:        client.Resource(clusterResource),
		clusterLister: clusters.ForResource(clusterResource).Lister(),
		podLister:     pods.Core().V1().Pods().Lister(),
		serviceLister: objects.Core().V1().Services().Lister(),
		secretLister:  objects.Core().V1().Secrets().Lister(),
		queue:         newQueue(),
		expected:      expectations{},
	}
	informed, err := created.listen(
		clusters.ForResource(clusterResource).Informer(),
		pods.Core().V1().Pods().Informer(),
		objects.Core().V1().Services().Informer(),
		objects.Core().V1().Secrets().Informer())
	clusters.Start(ctx.Done())
	objects.Start(ctx.Done())
	pods.Start(ctx.Done())
	return created, informed, err
}
