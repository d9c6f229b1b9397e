package operator

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// ensureGroup brings a group to its size. It looks only at groups which the spec names: the pods of a group that was
// taken out of the spec stay for ever.
func (c *controller) ensureGroup(ctx context.Context, cluster *rayCluster, group *workerGroup) error {
	if !c.expected.areMet(cluster, group.GroupName, c.podLister) {
		return nil
	}
	pods, err := c.podsOf(cluster, labels.Set{labelGroup: group.GroupName})
	if err != nil {
		return err
	}
	switch {
	case group.suspended():
		return c.suspendGroup(ctx, cluster, group)
	case group.NumOfHosts > 1:
		return c.ensureReplicas(ctx, cluster, group, pods)
	}
	if err := c.deleteFailed(ctx, cluster, group, pods); err != nil {
		return err
	}
	deleted, err := c.deleteNamed(ctx, cluster, group)
	if err != nil {
		return err
	}
	return c.resize(ctx, cluster, group, without(pods, deleted))
}

func without(pods []*corev1.Pod, names map[string]bool) []*corev1.Pod {
	var kept []*corev1.Pod
	for _, pod := range pods {
		if !names[pod.Name] {
			kept = append(kept, pod)
		}
	}
	return kept
}

func (c *controller) suspendGroup(ctx context.Context, cluster *rayCluster, group *workerGroup) error {
	if err := c.deleteCollection(ctx, cluster, labels.Set{labelGroup: group.GroupName}); err != nil {
		c.warn(cluster, "FailedToDeleteWorkerPodCollection", "Delete",
			"cannot delete the pods of the suspended group %s: %v", group.GroupName, err)
		return errors.Join(failedDeleteWorker, err)
	}
	c.tell(cluster, "DeletedWorkerPod", "Delete", "deleted all pods of the suspended group %s", group.GroupName)
	return nil
}

// deleteFailed clears away the pods that have ended. Their successors come in a later round, which the error brings.
func (c *controller) deleteFailed(
	ctx context.Context, cluster *rayCluster, group *workerGroup, pods []*corev1.Pod,
) error {
	count := 0
	for _, pod := range pods {
		if endOf(pod) == "" {
			continue
		}
		// KubeRay's users read these facts in its event, and rayml does.
		why := fmt.Sprintf("worker Pod %s/%s; Pod status: %s; its Ray container: %v",
			pod.Namespace, pod.Name, pod.Status.Phase, terminated(pod, rayContainer(pod).Name))
		if err := c.deleteWorker(ctx, cluster, group, pod.Name, why); err != nil {
			return err
		}
		count++
	}
	if count > 0 {
		return fmt.Errorf("deleted %d failed pods of group %s", count, group.GroupName)
	}
	return nil
}

// deleteWorker reports that the pod is gone already as an error like any other.
func (c *controller) deleteWorker(
	ctx context.Context, cluster *rayCluster, group *workerGroup, pod, why string,
) error {
	if err := c.kube.CoreV1().Pods(cluster.Namespace).Delete(ctx, pod, metav1.DeleteOptions{}); err != nil {
		if !apierrors.IsNotFound(err) {
			c.warn(cluster, "FailedToDeleteWorkerPod", "Delete",
				"cannot delete pod %s/%s: %v", cluster.Namespace, pod, err)
		}
		return errors.Join(failedDeleteWorker, err)
	}
	c.expected.expect(cluster, group.GroupName, pod, true)
	c.tell(cluster, "DeletedWorkerPod", "Delete", "deleted pod %s/%s: %s", cluster.Namespace, pod, why)
	return nil
}

// deleteNamed deletes what workersToDelete names, each time anew and whatever the group's size. Nothing is ever taken
// off that list, and a name on it may be any pod's of the namespace.
func (c *controller) deleteNamed(
	ctx context.Context, cluster *rayCluster, group *workerGroup,
) (map[string]bool, error) {
	deleted := map[string]bool{}
	for _, pod := range group.ScaleStrategy.WorkersToDelete {
		err := c.deleteWorker(ctx, cluster, group, pod, "scaleStrategy names it")
		if err == nil {
			deleted[pod] = true
		} else if !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	return deleted, nil
}

func (c *controller) resize(ctx context.Context, cluster *rayCluster, group *workerGroup, pods []*corev1.Pod) error {
	missing := int(group.wanted()) - len(pods)
	if missing >= 0 {
		return c.createWorkers(ctx, cluster, group, missing, indexesOf(pods))
	}
	if cluster.Spec.autoscales() {
		return nil // the autoscaler alone says which pods go
	}
	for _, pod := range pods[:-missing] {
		err := c.deleteWorker(ctx, cluster, group, pod.Name, "the group has too many")
		if apierrors.IsNotFound(err) {
			c.expected.expect(cluster, group.GroupName, pod.Name, true)
		} else if err != nil {
			return err
		}
	}
	return nil
}

func indexesOf(pods []*corev1.Pod) map[int]bool {
	taken := map[int]bool{}
	for _, pod := range pods {
		if index, err := strconv.Atoi(pod.Labels[labelReplicaIndex]); err == nil {
			taken[index] = true
		}
	}
	return taken
}

// takeIndex returns the lowest index that is free, and takes it.
func takeIndex(taken map[int]bool) int {
	index := 0
	for taken[index] {
		index++
	}
	taken[index] = true
	return index
}

func (c *controller) createWorkers(
	ctx context.Context, cluster *rayCluster, group *workerGroup, count int, taken map[int]bool,
) error {
	for range count {
		if err := c.createWorker(ctx, cluster, group, host{replicaIndex: takeIndex(taken)}); err != nil {
			return err
		}
	}
	return nil
}

func (c *controller) createWorker(ctx context.Context, cluster *rayCluster, group *workerGroup, place host) error {
	pod := workerPod(cluster, group, place)
	created, err := c.kube.CoreV1().Pods(cluster.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		c.warn(cluster, "FailedToCreateWorkerPod", "Create",
			"cannot create a worker pod of %s/%s: %v", cluster.Namespace, cluster.Name, err)
		return errors.Join(failedCreateWorker, err)
	}
	c.expected.expect(cluster, group.GroupName, created.Name, false)
	c.tell(cluster, "CreatedWorkerPod", "Create", "created worker pod %s/%s", cluster.Namespace, created.Name)
	return nil
}
