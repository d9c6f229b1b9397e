package operator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
)

const (
	conditionHeadReady      = "HeadPodReady"
	conditionProvisioned    = "RayClusterProvisioned"
	conditionReplicaFailure = "ReplicaFailure"
	conditionSuspending     = "RayClusterSuspending"
	conditionSuspended      = "RayClusterSuspended"
)

// suspension is the one of the two suspension conditions that holds, or "".
func suspension(cluster *rayCluster) string {
	for _, condition := range []string{conditionSuspending, conditionSuspended} {
		if meta.IsStatusConditionTrue(cluster.Status.Conditions, condition) {
			return condition
		}
	}
	return ""
}

// report writes the status if it has changed, and says whether it has. The time and the observed generation count as
// no change: an edit of the spec that moves no counter leaves the old generation standing.
func (c *controller) report(
	ctx context.Context, stored *unstructured.Unstructured, cluster *rayCluster, failure error,
) (bool, error) {
	pods, err := c.podsOf(cluster, labels.Set{})
	if err != nil {
		return false, err
	}
	services, err := c.headServices(cluster)
	if err != nil {
		return false, err
	}
	status, err := newStatus(cluster, pods, services, failure)
	if err != nil || !differs(&cluster.Status, status) {
		return false, err
	}
	return true, c.writeStatus(ctx, stored, status)
}

func differs(before, after *clusterStatus) bool {
	ignored := *before
	ignored.LastUpdateTime, ignored.ObservedGeneration = after.LastUpdateTime, after.ObservedGeneration
	ignored.StateTransitionTimes = after.StateTransitionTimes
	ignored.DesiredCPU, ignored.DesiredMemory = after.DesiredCPU, after.DesiredMemory
	ignored.DesiredGPU, ignored.DesiredTPU = after.DesiredGPU, after.DesiredTPU
	return !reflect.DeepEqual(&ignored, after)
}

// writeStatus fails if the cluster has been edited since it was read; the next round then reads it anew.
func (c *controller) writeStatus(
	ctx context.Context, stored *unstructured.Unstructured, status *clusterStatus,
) error {
	text, err := json.Marshal(status)
	if err != nil {
		return fmt.Errorf("encode a status: %w", err)
	}
	content := map[string]any{}
	if err := json.Unmarshal(text, &content); err != nil {
		return fmt.Errorf("decode a status: %w", err)
	}
	updated := stored.DeepCopy()
	updated.Object["status"] = content
	clusters := c.client.Namespace(updated.GetNamespace())
	if _, err := clusters.UpdateStatus(ctx, updated, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("write the status of %s: %w", updated.GetName(), err)
	}
	return nil
}

func newStatus(
	cluster *rayCluster, pods []*corev1.Pod, services []*corev1.Service, failure error,
) (*clusterStatus, error) {
	status, err := copyStatus(&cluster.Status)
	if err != nil {
		return nil, err
	}
	headPod, err := onlyHead(cluster, pods)
	if err != nil {
		return nil, err
	}
	setFailure(status, failure)
	count(status, cluster, pods)
	if failure == nil && len(pods) == int(status.DesiredWorkerReplicas)+1 && allReady(pods) {
		status.State, status.Reason = "ready", "" // and so it stays, whatever becomes of the pods
	}
	setConditions(status, cluster, pods, headPod)
	if cluster.Spec.suspended() && len(pods) == 0 {
		status.State = "suspended"
	}
	if err := locate(status, cluster, headPod, services); err != nil {
		return nil, err
	}
	now := metav1.Now()
	status.ObservedGeneration, status.LastUpdateTime = cluster.Generation, &now
	if status.State != cluster.Status.State {
		if status.StateTransitionTimes == nil {
			status.StateTransitionTimes = map[string]*metav1.Time{}
		}
		status.StateTransitionTimes[status.State] = &now
	}
	return status, nil
}

func copyStatus(status *clusterStatus) (*clusterStatus, error) {
	text, err := json.Marshal(status)
	if err != nil {
		return nil, fmt.Errorf("encode a status: %w", err)
	}
	copied := &clusterStatus{}
	if err := json.Unmarshal(text, copied); err != nil {
		return nil, fmt.Errorf("decode a status: %w", err)
	}
	return copied, nil
}

func onlyHead(cluster *rayCluster, pods []*corev1.Pod) (*corev1.Pod, error) {
	var found *corev1.Pod
	for _, pod := range pods {
		if pod.Labels[labelNodeType] != string(head) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("RayCluster %s has more than one head pod", cluster.Name)
		}
		found = pod
	}
	return found, nil
}

// setFailure leaves an earlier failure standing while errors of other kinds come up.
func setFailure(status *clusterStatus, failure error) {
	var reason replicaFailure
	switch {
	case failure == nil:
		meta.RemoveStatusCondition(&status.Conditions, conditionReplicaFailure)
	case errors.As(failure, &reason):
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: conditionReplicaFailure, Status: metav1.ConditionTrue, Reason: string(reason), Message: failure.Error(),
		})
	}
}

func count(status *clusterStatus, cluster *rayCluster, pods []*corev1.Pod) {
	status.ReadyWorkerReplicas, status.AvailableWorkerReplicas = 0, 0
	for _, pod := range pods {
		if pod.Labels[labelNodeType] != string(worker) || pod.Status.Phase != corev1.PodRunning {
			continue
		}
		status.AvailableWorkerReplicas++
		if condition := readiness(pod); condition != nil && condition.Status == corev1.ConditionTrue {
			status.ReadyWorkerReplicas++
		}
	}
	var highest int64
	status.DesiredWorkerReplicas, status.MinWorkerReplicas = 0, 0
	for i := range cluster.Spec.WorkerGroupSpecs {
		group := &cluster.Spec.WorkerGroupSpecs[i]
		if group.suspended() {
			continue
		}
		status.DesiredWorkerReplicas += group.wanted()
		status.MinWorkerReplicas += group.minimum() * group.NumOfHosts
		highest += int64(group.maximum()) * int64(group.NumOfHosts)
	}
	status.MaxWorkerReplicas = int32(min(highest, math.MaxInt32))
	sumResources(status, cluster)
}

// sumResources counts what the replicas would use as they are written, before minimum and maximum bound them.
func sumResources(status *clusterStatus, cluster *rayCluster) {
	total := corev1.ResourceList{}
	addResources(total, &cluster.Spec.HeadGroupSpec.Template, 1)
	for i := range cluster.Spec.WorkerGroupSpecs {
		if group := &cluster.Spec.WorkerGroupSpecs[i]; !group.suspended() {
			addResources(total, &group.Template, int64(*group.Replicas)*int64(group.NumOfHosts))
		}
	}
	status.DesiredCPU, status.DesiredMemory = total[corev1.ResourceCPU], total[corev1.ResourceMemory]
	status.DesiredTPU = total["google.com/tpu"]
	status.DesiredGPU.Set(0)
	for name, amount := range total {
		if isGPU(string(name)) {
			status.DesiredGPU.Add(amount)
		}
	}
}

// addResources prefers a container's requests to its limits.
func addResources(total corev1.ResourceList, template *corev1.PodTemplateSpec, times int64) {
	for _, container := range template.Spec.Containers {
		used := container.Resources.Limits.DeepCopy()
		if used == nil {
			used = corev1.ResourceList{}
		}
		for name, amount := range container.Resources.Requests {
			used[name] = amount.DeepCopy()
		}
		for name, amount := range used {
			amount.Mul(times)
			sum := total[name]
			sum.Add(amount)
			total[name] = sum
		}
	}
}

func readiness(pod *corev1.Pod) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == corev1.PodReady {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

func allReady(pods []*corev1.Pod) bool {
	for _, pod := range pods {
		condition := readiness(pod)
		if pod.Status.Phase != corev1.PodRunning || condition != nil && condition.Status != corev1.ConditionTrue {
			return false
		}
	}
	return len(pods) > 0
}

// locate says where the head is. A headless service has no address: the head's own stands in.
func locate(status *clusterStatus, cluster *rayCluster, headPod *corev1.Pod, services []*corev1.Service) error {
	if len(services) != 1 {
		return fmt.Errorf("RayCluster %s has %d head services in place of one", cluster.Name, len(services))
	}
	service := services[0]
	if status.Endpoints == nil {
		status.Endpoints = map[string]string{}
	}
	for _, port := range service.Spec.Ports {
		number := cmp.Or(port.NodePort, port.TargetPort.IntVal)
		if text := cmp.Or(strconv.Itoa(int(number)), "0"); text != "0" {
			status.Endpoints[port.Name] = text
		} else if port.TargetPort.StrVal != "" {
			status.Endpoints[port.Name] = port.TargetPort.StrVal
		}
	}
	status.Head = headStatus{ServiceName: service.Name, ServiceIP: service.Spec.ClusterIP}
	if headPod != nil {
		status.Head.PodName, status.Head.PodIP = headPod.Name, headPod.Status.PodIP
	}
	if service.Spec.ClusterIP == corev1.ClusterIPNone {
		status.Head.ServiceIP = status.Head.PodIP
	}
	return nil
}
