package operator

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (status *clusterStatus) set(condition string, holds bool, reason, message string) {
	value := metav1.ConditionFalse
	if holds {
		value = metav1.ConditionTrue
	}
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: condition, Status: value, Reason: reason, Message: message,
	})
}

func setConditions(status *clusterStatus, cluster *rayCluster, pods []*corev1.Pod, headPod *corev1.Pod) {
	meta.SetStatusCondition(&status.Conditions, headReadiness(headPod))
	provisioned := meta.IsStatusConditionTrue(status.Conditions, conditionProvisioned)
	if !provisioned && suspension(cluster) != conditionSuspended {
		if allReady(pods) {
			status.set(conditionProvisioned, true, "AllPodRunningAndReadyFirstTime", "all pods have been ready at one time")
		} else {
			status.set(conditionProvisioned, false, "RayClusterPodsProvisioning", "the first pods are not all ready yet")
		}
	}
	setSuspension(status, cluster, len(pods) == 0)
}

// setSuspension moves one step: from running to suspending when asked, from suspending to suspended when the last pod
// is gone whatever is asked by then, and from suspended back when asked.
func setSuspension(status *clusterStatus, cluster *rayCluster, empty bool) {
	switch suspension(cluster) {
	case conditionSuspending:
		if empty {
			status.set(conditionProvisioned, false, "RayClusterPodsProvisioning", "the cluster is suspended")
			status.set(conditionSuspending, false, conditionSuspending, "")
			status.set(conditionSuspended, true, conditionSuspended, "")
		}
	case conditionSuspended:
		if cluster.Spec.Suspend != nil && !*cluster.Spec.Suspend {
			status.set(conditionSuspended, false, conditionSuspended, "")
		}
	default:
		status.set(conditionSuspended, false, conditionSuspended, "")
		status.set(conditionSuspending, cluster.Spec.suspended(), conditionSuspending, "")
	}
}

// headReadiness repeats the head pod's own condition, with a container's reason where one waits or has ended.
func headReadiness(headPod *corev1.Pod) metav1.Condition {
	ready := metav1.Condition{Type: conditionHeadReady, Status: metav1.ConditionFalse}
	if headPod == nil {
		ready.Reason, ready.Message = "HeadPodNotFound", "there is no head pod"
		return ready
	}
	ready.Reason = "Unknown"
	condition := readiness(headPod)
	if condition == nil {
		return ready
	}
	ready.Status, ready.Message = metav1.ConditionStatus(condition.Status), condition.Message
	if condition.Reason != "" {
		ready.Reason = condition.Reason
	} else if condition.Status == corev1.ConditionTrue {
		ready.Reason = "HeadPodRunningAndReady"
	}
	if condition.Reason == "ContainersNotReady" {
		explain(&ready, headPod)
	}
	return ready
}

func explain(ready *metav1.Condition, headPod *corev1.Pod) {
	for _, status := range headPod.Status.ContainerStatuses {
		var reason, message string
		switch {
		case status.State.Waiting != nil:
			reason, message = status.State.Waiting.Reason, status.State.Waiting.Message
		case status.State.Terminated != nil:
			reason, message = status.State.Terminated.Reason, status.State.Terminated.Message
		default:
			continue
		}
		ready.Reason = reason
		if ready.Message != "" {
			ready.Message += "; "
		}
		ready.Message += status.Name + ": " + message
		return
	}
}
