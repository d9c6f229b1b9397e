package kubelet

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
)

// Config is what the file kubelet.json in the plane's folder holds; it is read anew when told to.
type Config struct {
	Nodes    map[string]NodeConfig  `json:"nodes"`
	Images   map[string]ImageConfig `json:"images"`
	BackOffS float64                `json:"backOffS"` // before the second restart of a container
}

// Kubelet runs the pods that are bound to its nodes.
type Kubelet struct {
	settings Settings
	client   kubernetes.Interface
	events   record.EventBroadcaster
	address  string // the bridge's, which is every node's as well
	network  *network
	cgroups  *cgroups

	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
	changes  chan struct{} // of services, for the hosts files

	mu      sync.Mutex
	config  Config
	nodes   map[string]*node
	workers map[types.UID]*worker
}

func newKubelet(settings Settings, client kubernetes.Interface) (*Kubelet, error) {
	ip, _, err := net.ParseCIDR(settings.Address)
	if err != nil {
		return nil, err
	}
	network, err := newNetwork(settings.Address)
	if err != nil {
		return nil, err
	}
	return &Kubelet{
		settings: settings, client: client, address: ip.String(), network: network,
		cgroups: newCgroups(settings.Folder),
		events:  record.NewBroadcaster(), changes: make(chan struct{}, 1),
		nodes: map[string]*node{}, workers: map[types.UID]*worker{},
	}, nil
}

func (k *Kubelet) run(ctx context.Context) error {
	k.events.StartRecordingToSink(&typed.EventSinkImpl{Interface: k.client.CoreV1().Events("")})
	defer k.events.Shutdown()
	if err := k.reload(ctx); err != nil {
		return err
	}
	if err := k.watch(ctx); err != nil {
		return err
	}
	go k.keepHosts(ctx)
	go k.beat(ctx)
	go k.serveLogs()
	return k.serveControl(ctx)
}

// watch starts the informers; pods are told to workers from here on.
func (k *Kubelet) watch(ctx context.Context) error {
	factory := informers.NewSharedInformerFactory(k.client, 0)
	k.services = factory.Core().V1().Services().Lister()
	k.slices = factory.Discovery().V1().EndpointSlices().Lister()
	changed := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { k.servicesChanged() },
		UpdateFunc: func(any, any) { k.servicesChanged() },
		DeleteFunc: func(any) { k.servicesChanged() },
	}
	if _, err := factory.Core().V1().Services().Informer().AddEventHandler(changed); err != nil {
		return err
	}
	if _, err := factory.Discovery().V1().EndpointSlices().Informer().AddEventHandler(changed); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	pods := factory.Core().V1().Pods().Informer()
	_, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(pod any) { k.podChanged(pod.(*v1.Pod)) },
		UpdateFunc: func(_, pod any) { k.podChanged(pod.(*v1.Pod)) },
		DeleteFunc: k.podDeleted,
	})
	factory.Start(ctx.Done())
	return err
}

func (k *Kubelet) podChanged(pod *v1.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	node := k.nodes[pod.Spec.NodeName]
	if node == nil || node.lost {
		return
	}
	if known := k.workers[pod.UID]; known != nil {
		known.update(pod)
		return
	}
	if pod.DeletionTimestamp != nil {
		go k.remove(pod) // nothing of it runs
		return
	}
	if pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed {
		return
	}
	worker := newWorker(k, node, pod)
	k.workers[pod.UID] = worker
	go worker.run()
}

func (k *Kubelet) podDeleted(object any) {
	if tombstone, is := object.(cache.DeletedFinalStateUnknown); is {
		object = tombstone.Obj
	}
	pod := object.(*v1.Pod)
	k.mu.Lock()
	worker := k.workers[pod.UID]
	k.mu.Unlock()
	if worker != nil {
		worker.abandon()
	}
}

func (k *Kubelet) forget(uid types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.workers, uid)
}

// worker finds the worker of a pod by names.
func (k *Kubelet) worker(namespace, name string) *worker {
	for _, worker := range k.allWorkers() {
		if pod := worker.pod(); pod.Namespace == namespace && pod.Name == name {
			return worker
		}
	}
	return nil
}

func (k *Kubelet) allWorkers() []*worker {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]*worker, 0, len(k.workers))
	for _, worker := range k.workers {
		all = append(all, worker)
	}
	return all
}

// reload reads the file of settings, adds the nodes that are new and updates those that differ.
func (k *Kubelet) reload(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(k.settings.Folder, "kubelet.json"))
	if err != nil {
		return err
	}
	var config Config
	if err := json.Unmarshal(text, &config); err != nil {
		return err
	}
	if config.BackOffS == 0 {
		config.BackOffS = 10
	}
	k.mu.Lock()
	k.config = config
	k.mu.Unlock()
	for name, spec := range config.Nodes {
		if err := k.setNode(ctx, name, spec); err != nil {
			return err
		}
	}
	return nil
}

func (k *Kubelet) backOff(failures int) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	first := time.Duration(k.config.BackOffS * float64(time.Second))
	return min(first<<min(failures, 10), 5*time.Minute)
}

func (k *Kubelet) recorder(node string) record.EventRecorder {
	return k.events.NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet", Host: node})
}
