package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

const (
	// soon is when a cluster is looked at again after its status has changed.
	soon = 2 * time.Second
	// later is when it is looked at again though nothing has happened.
	later = 300 * time.Second
)

type workQueue = workqueue.TypedRateLimitingInterface[types.NamespacedName]

// controller turns each RayCluster into pods, one cluster after the other.
type controller struct {
	kube          kubernetes.Interface
	client        dynamic.NamespaceableResourceInterface
	clusterLister cache.GenericLister
	podLister     corelisters.PodLister
	serviceLister corelisters.ServiceLister
	secretLister  corelisters.SecretLister
	events        events.EventRecorder
	queue         workQueue
	expected      expectations
}

// newQueue retries a failing cluster after 5 ms, and then after twice as long each time.
func newQueue() workQueue {
	return workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[types.NamespacedName]())
}

// listen queues a cluster when it, or something that it owns, changes.
func (c *controller) listen(
	clusters cache.SharedInformer, owned ...cache.SharedInformer,
) ([]cache.InformerSynced, error) {
	registered, err := clusters.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    c.queueSelf,
		DeleteFunc: c.queueSelf,
		UpdateFunc: func(before, after any) {
			if isEdited(before.(*unstructured.Unstructured), after.(*unstructured.Unstructured)) {
				c.queueSelf(after)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("listen to RayClusters: %w", err)
	}
	informed := []cache.InformerSynced{registered.HasSynced}
	for _, informer := range owned {
		registered, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    c.queueOwner,
			DeleteFunc: c.queueOwner,
			UpdateFunc: func(_, after any) { c.queueOwner(after) },
		})
		if err != nil {
			return nil, fmt.Errorf("listen to what RayClusters own: %w", err)
		}
		informed = append(informed, registered.HasSynced)
	}
	return informed, nil
}

// isEdited tells a change of the cluster from one of its status, which the controller has made itself. A watch that
// was cut shows a cluster that was deleted and made anew as changed, with the generation that it had.
func isEdited(before, after *unstructured.Unstructured) bool {
	return before.GetUID() != after.GetUID() ||
		before.GetGeneration() != after.GetGeneration() ||
		!maps.Equal(before.GetLabels(), after.GetLabels()) ||
		!maps.Equal(before.GetAnnotations(), after.GetAnnotations())
}

func (c *controller) queueSelf(object any) {
	if name, err := cache.DeletionHandlingObjectToName(object); err == nil {
		c.queue.Add(types.NamespacedName{Namespace: name.Namespace, Name: name.Name})
	}
}

func (c *controller) queueOwner(object any) {
	if gone, isTombstone := object.(cache.DeletedFinalStateUnknown); isTombstone {
		object = gone.Obj
	}
	owned, isObject := object.(metav1.Object)
	if !isObject {
		return
	}
	if owner := metav1.GetControllerOf(owned); owner != nil && owner.Kind == clusterKind.Kind {
		c.queue.Add(types.NamespacedName{Namespace: owned.GetNamespace(), Name: owner.Name})
	}
}

// run works until the context ends.
func (c *controller) run(ctx context.Context, informed []cache.InformerSynced) {
	go func() {
		<-ctx.Done()
		c.queue.ShutDown()
	}()
	if !cache.WaitForCacheSync(ctx.Done(), informed...) {
		return
	}
	klog.InfoS("serving RayClusters", "as", release)
	for c.workOnce(ctx) {
	}
}

func (c *controller) workOnce(ctx context.Context) bool {
	key, shutDown := c.queue.Get()
	if shutDown {
		return false
	}
	defer c.queue.Done(key)
	again, err := c.reconcile(ctx, key)
	switch {
	case err != nil:
		utilruntime.HandleErrorWithContext(ctx, err, "reconcile a RayCluster", "cluster", key)
		c.queue.AddRateLimited(key)
	default:
		c.queue.Forget(key)
		if again > 0 {
			c.queue.AddAfter(key, again)
		}
	}
	return true
}

// reconcile brings one cluster closer to its spec, and says when to look at it again (0: when something happens).
func (c *controller) reconcile(ctx context.Context, key types.NamespacedName) (time.Duration, error) {
	found, err := c.clusterLister.ByNamespace(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		c.expected.forget(key)
		return 0, nil
	} else if err != nil {
		return 0, fmt.Errorf("look up RayCluster %s: %w", key, err)
	}
	stored := found.(*unstructured.Unstructured)
	cluster, err := readCluster(stored)
	if err != nil {
		return 0, err
	}
	if isForeign(cluster) || c.isRefused(cluster) {
		return 0, nil
	}
	if err := checkStatus(cluster); err != nil {
		c.warn(cluster, "InvalidRayClusterStatus", "Validate", "%v", err)
		return 0, err
	}
	if needsFinalizer(cluster) {
		return c.finalize(ctx, stored, cluster)
	}
	if cluster.DeletionTimestamp != nil {
		return 0, nil
	}
	return c.provide(ctx, stored, cluster)
}

// provide makes what the cluster needs and reports what is there, whether or not all could be made.
func (c *controller) provide(
	ctx context.Context, stored *unstructured.Unstructured, cluster *rayCluster,
) (time.Duration, error) {
	failure := c.makeAll(ctx, cluster)
	changed, err := c.report(ctx, stored, cluster, failure)
	switch {
	case failure != nil:
		return 0, failure
	case err != nil:
		return 0, err
	case changed:
		return soon, nil
	}
	return later, nil
}

// makeAll stops at the first thing that cannot be made: without its secret, say, a cluster gets no pods.
func (c *controller) makeAll(ctx context.Context, cluster *rayCluster) error {
	for _, step := range []func(context.Context, *rayCluster) error{
		c.ensureAutoscalerAccess,
		c.ensureIngress,
		c.ensureTokenSecret,
		c.ensureHeadService,
		c.ensureWorkersService,
		c.ensureServeService,
		c.ensurePods,
	} {
		if err := step(ctx, cluster); err != nil {
			return err
		}
	}
	return nil
}

// readCluster fills in the defaults of the CRD's schema, for a server which was given a schema without them.
func readCluster(stored *unstructured.Unstructured) (*rayCluster, error) {
	text, err := stored.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encode RayCluster %s: %w", stored.GetName(), err)
	}
	cluster := &rayCluster{}
	if err := json.Unmarshal(text, cluster); err != nil {
		return nil, fmt.Errorf("decode RayCluster %s: %w", stored.GetName(), err)
	}
	for i := range cluster.Spec.WorkerGroupSpecs {
		group := &cluster.Spec.WorkerGroupSpecs[i]
		group.Replicas = ptr.To(ptr.Deref(group.Replicas, 0))
		group.MinReplicas = ptr.To(ptr.Deref(group.MinReplicas, 0))
		group.MaxReplicas = ptr.To(ptr.Deref(group.MaxReplicas, math.MaxInt32))
		group.NumOfHosts = max(group.NumOfHosts, 1)
	}
	return cluster, nil
}

// isForeign says that another controller, Kueue's, looks after the cluster.
func isForeign(cluster *rayCluster) bool {
	return ptr.Deref(cluster.Spec.ManagedBy, "ray.io/kuberay-operator") != "ray.io/kuberay-operator"
}

// isRefused checks the cluster. A refusal shows in an event and nowhere else: no status, no pods, no retry.
func (c *controller) isRefused(cluster *rayCluster) bool {
	if err := checkName(cluster); err != nil {
		c.warn(cluster, "InvalidRayClusterMetadata", "Validate", "%v", err)
		return true
	}
	if err := checkSpec(cluster); err != nil {
		c.warn(cluster, "InvalidRayClusterSpec", "Validate",
			"the spec of %s/%s is invalid: %v", cluster.Namespace, cluster.Name, err)
		return true
	}
	c.warnOfRestarts(cluster)
	if err := checkUpgrade(cluster); err != nil {
		c.warn(cluster, "InvalidRayClusterSpec", "Validate",
			"the spec of %s/%s is invalid: %v", cluster.Namespace, cluster.Name, err)
		return true
	}
	return false
}

// warnOfRestarts complains of restart policies that the first autoscaler copes badly with, and refuses nothing.
func (c *controller) warnOfRestarts(cluster *rayCluster) {
	if !cluster.Spec.autoscales() || cluster.Spec.autoscalerVersion() != "v1" {
		return
	}
	for _, group := range cluster.Spec.WorkerGroupSpecs {
		if restarts(&group.Template) {
			c.warn(cluster, "InvalidRayClusterSpec", "Validate",
				"the restartPolicy of worker group %s should be Never or unset with autoscaler v1", group.GroupName)
			return
		}
	}
}

func (c *controller) warn(cluster *rayCluster, reason, action, note string, args ...any) {
	c.events.Eventf(reference(cluster), nil, corev1.EventTypeWarning, reason, action, note, args...)
}

func (c *controller) tell(cluster *rayCluster, reason, action, note string, args ...any) {
	c.events.Eventf(reference(cluster), nil, corev1.EventTypeNormal, reason, action, note, args...)
}

func reference(cluster *rayCluster) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		APIVersion: clusterKind.GroupVersion().String(), Kind: clusterKind.Kind,
		Namespace: cluster.Namespace, Name: cluster.Name, UID: cluster.UID, ResourceVersion: cluster.ResourceVersion,
	}
}
