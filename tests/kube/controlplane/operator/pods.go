package operator

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// replicaFailure is an error that shows in the cluster's condition ReplicaFailure, as its reason.
type replicaFailure string

func (f replicaFailure) Error() string { return string(f) }

const (
	failedDeleteAll    = replicaFailure("FailedDeleteAllPods")
	failedDeleteHead   = replicaFailure("FailedDeleteHeadPod")
	failedCreateHead   = replicaFailure("FailedCreateHeadPod")
	failedDeleteWorker = replicaFailure("FailedDeleteWorkerPod")
	failedCreateWorker = replicaFailure("FailedCreateWorkerPod")
)

// headExpectations is the group under which the head is expected: no worker group has an empty name.
const headExpectations = ""

// podsOf lists the cached pods with the labels, in no order.
func (c *controller) podsOf(cluster *rayCluster, matching labels.Set) ([]*corev1.Pod, error) {
	selector := labels.Set{labelCluster: cluster.Name}
	for key, value := range matching {
		selector[key] = value
	}
	pods, err := c.podLister.Pods(cluster.Namespace).List(selector.AsSelector())
	if err != nil {
		return nil, fmt.Errorf("list the pods of RayCluster %s: %w", cluster.Name, err)
	}
	return pods, nil
}

func (c *controller) ensurePods(ctx context.Context, cluster *rayCluster) error {
	switch suspension(cluster) {
	case conditionSuspending:
		return c.deleteAll(ctx, cluster, "it is being suspended")
	case conditionSuspended:
		return nil
	}
	if cluster.Spec.suspended() {
		return nil // the condition comes first, then the pods go
	}
	hash, err := specHash(cluster)
	if err != nil {
		return err
	}
	if outdated, err := c.isOutdated(ctx, cluster, hash); err != nil {
		return err
	} else if outdated {
		if err := c.deleteAll(ctx, cluster, "its spec has changed"); err != nil {
			return err
		}
		c.expected.forget(types.NamespacedName{Namespace: cluster.Namespace, Name: cluster.Name})
		return nil
	}
	if resting, err := c.ensureHead(ctx, cluster, hash); err != nil || resting {
		return err
	}
	for i := range cluster.Spec.WorkerGroupSpecs {
		if err := c.ensureGroup(ctx, cluster, &cluster.Spec.WorkerGroupSpecs[i]); err != nil {
			return err
		}
	}
	return nil
}

// specHash tells specs apart that need other pods: sizes, names to delete and what schedulers add do not count, but a
// further worker group does.
func specHash(cluster *rayCluster) (string, error) {
	spec := cluster.Spec
	spec.UpgradeStrategy = nil
	muteScheduling(&spec.HeadGroupSpec.Template)
	spec.WorkerGroupSpecs = append([]workerGroup{}, spec.WorkerGroupSpecs...)
	for i := range spec.WorkerGroupSpecs {
		group := &spec.WorkerGroupSpecs[i]
		group.Replicas, group.MinReplicas, group.MaxReplicas = nil, nil, nil
		group.ScaleStrategy = scaleStrategy{}
		muteScheduling(&group.Template)
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return "", fmt.Errorf("encode the spec of %s: %w", cluster.Name, err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16]), nil
}

func muteScheduling(template *corev1.PodTemplateSpec) {
	template.Spec.Tolerations, template.Spec.SchedulingGates = nil, nil
}

// isOutdated compares the spec with the one that the head was made from, if the cluster wants to be made anew then.
// A head that another release has made is taken for current, once.
func (c *controller) isOutdated(ctx context.Context, cluster *rayCluster, hash string) (bool, error) {
	if !cluster.Spec.recreates() {
		return false, nil
	}
	heads, err := c.podsOf(cluster, labels.Set{labelNodeType: string(head)})
	if err != nil || len(heads) == 0 {
		return false, err
	}
	made := heads[0].Annotations
	if made[annotationVersion] != "" && made[annotationVersion] != release {
		adopted := heads[0].DeepCopy()
		adopted.Annotations[annotationSpecHash], adopted.Annotations[annotationVersion] = hash, release
		_, err := c.kube.CoreV1().Pods(cluster.Namespace).Update(ctx, adopted, metav1.UpdateOptions{})
		return false, err
	}
	return made[annotationSpecHash] != "" && made[annotationSpecHash] != hash, nil
}

func (c *controller) deleteAll(ctx context.Context, cluster *rayCluster, why string) error {
	if err := c.deleteCollection(ctx, cluster, labels.Set{}); err != nil {
		c.warn(cluster, "FailedToDeletePodCollection", "Delete",
			"cannot delete the pods of %s/%s: %v", cluster.Namespace, cluster.Name, err)
		return errors.Join(failedDeleteAll, err)
	}
	c.tell(cluster, "DeletedPod", "Delete",
		"deleted all pods of %s/%s, because %s", cluster.Namespace, cluster.Name, why)
	return nil
}

// deleteCollection asks only if there is a pod that is not on its way out.
func (c *controller) deleteCollection(ctx context.Context, cluster *rayCluster, matching labels.Set) error {
	pods, err := c.podsOf(cluster, matching)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		if pod.DeletionTimestamp == nil {
			selector := labels.Merge(labels.Set{labelCluster: cluster.Name}, matching)
			return c.kube.CoreV1().Pods(cluster.Namespace).DeleteCollection(ctx, metav1.DeleteOptions{},
				metav1.ListOptions{LabelSelector: selector.String()})
		}
	}
	return nil
}

// ensureHead keeps exactly one head. It says whether the cluster rests without one, and its workers with it.
func (c *controller) ensureHead(ctx context.Context, cluster *rayCluster, hash string) (bool, error) {
	heads, err := c.podsOf(cluster, labels.Set{labelNodeType: string(head)})
	if err != nil || !c.expected.areMet(cluster, headExpectations, c.podLister) {
		return false, err
	}
	switch len(heads) {
	case 0:
		provisioned := meta.IsStatusConditionTrue(cluster.Status.Conditions, conditionProvisioned)
		if provisioned && cluster.Annotations[annotationKeepHeadDown] == "true" {
			return true, nil
		}
		return false, c.createHead(ctx, cluster, hash)
	case 1:
		return false, c.deleteFailedHead(ctx, cluster, heads[0])
	}
	return false, fmt.Errorf("RayCluster %s has %d head pods; delete all but one", cluster.Name, len(heads))
}

func (c *controller) createHead(ctx context.Context, cluster *rayCluster, hash string) error {
	pod := headPod(cluster)
	pod.Annotations[annotationSpecHash], pod.Annotations[annotationVersion] = hash, release
	created, err := c.kube.CoreV1().Pods(cluster.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		c.warn(cluster, "FailedToCreateHeadPod", "Create",
			"cannot create the head pod of %s/%s: %v", cluster.Namespace, cluster.Name, err)
		return errors.Join(failedCreateHead, err)
	}
	c.expected.expect(cluster, headExpectations, created.Name, false)
	c.tell(cluster, "CreatedHeadPod", "Create", "created head pod %s/%s", cluster.Namespace, created.Name)
	return nil
}

// deleteFailedHead makes room for a new head; the deletion itself is reported as an error, and so comes back soon.
func (c *controller) deleteFailedHead(ctx context.Context, cluster *rayCluster, pod *corev1.Pod) error {
	end := endOf(pod)
	if end == "" {
		return nil
	}
	if err := c.kube.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{}); err != nil {
		c.warn(cluster, "FailedToDeleteHeadPod", "Delete",
			"cannot delete head pod %s/%s, which %s: %v", pod.Namespace, pod.Name, end, err)
		return errors.Join(failedDeleteHead, err)
	}
	c.expected.expect(cluster, headExpectations, pod.Name, true)
	c.tell(cluster, "DeletedHeadPod", "Delete", "deleted head pod %s/%s, which %s", pod.Namespace, pod.Name, end)
	return fmt.Errorf("head pod %s %s", pod.Name, end)
}

// endOf says how a pod has ended for good, or "" while Kubernetes may yet restart it: a crashing container under the
// usual restart policy is left to the kubelet.
func endOf(pod *corev1.Pod) string {
	switch pod.Status.Phase {
	case corev1.PodFailed, corev1.PodSucceeded:
		return "ended as " + string(pod.Status.Phase)
	case corev1.PodRunning:
		if pod.Spec.RestartPolicy == corev1.RestartPolicyNever && terminated(pod, rayContainer(pod).Name) != nil {
			return "has lost its Ray container and never restarts it"
		}
	}
	return ""
}

func terminated(pod *corev1.Pod, container string) *corev1.ContainerStateTerminated {
	for _, status := range pod.Status.ContainerStatuses {
		if status.Name == container {
			return status.State.Terminated
		}
	}
	return nil
}
