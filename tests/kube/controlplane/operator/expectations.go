package operator

import (
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// creationPatience is how long a created pod is waited for; it may have been deleted before the cache saw it.
const creationPatience = 30 * time.Second

// expectation is a pod that the controller has made or deleted and that the cache may not know of yet.
type expectation struct {
	cluster types.NamespacedName
	group   string
	deleted bool
	since   time.Time
}

// expectations keep the controller from acting twice on what an old cache says: a group is left alone until all its
// pods have come and gone as told. Only the one worker of the queue touches them.
type expectations map[types.NamespacedName]expectation

func (e expectations) expect(cluster *rayCluster, group, pod string, deleted bool) {
	e[types.NamespacedName{Namespace: cluster.Namespace, Name: pod}] = expectation{
		cluster: types.NamespacedName{Namespace: cluster.Namespace, Name: cluster.Name},
		group:   group,
		deleted: deleted,
		since:   time.Now(),
	}
}

// areMet drops the expectations which have come true, and says whether none of the group's is left.
func (e expectations) areMet(cluster *rayCluster, group string, pods corelisters.PodLister) bool {
	key := types.NamespacedName{Namespace: cluster.Namespace, Name: cluster.Name}
	for pod, expected := range e {
		if expected.cluster != key || expected.group != group {
			continue
		}
		if !expected.isMet(pod, pods) {
			return false
		}
		delete(e, pod)
	}
	return true
}

func (e expectation) isMet(pod types.NamespacedName, pods corelisters.PodLister) bool {
	_, err := pods.Pods(pod.Namespace).Get(pod.Name)
	if e.deleted {
		return apierrors.IsNotFound(err)
	}
	return err == nil || time.Since(e.since) > creationPatience
}

func (e expectations) forget(cluster types.NamespacedName) {
	for pod, expected := range e {
		if expected.cluster == cluster {
			delete(e, pod)
		}
	}
}
