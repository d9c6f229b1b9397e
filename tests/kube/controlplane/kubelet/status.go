package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

const patience = 500 * time.Millisecond // with an apiserver that does not answer

// changed lets the status be posted again.
func (w *worker) changed() {
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

func (w *worker) set(change func()) {
	w.mu.Lock()
	change()
	w.mu.Unlock()
	w.changed()
}

// post keeps the pod's status in the apiserver as it is here, until all has ended and is told.
func (w *worker) post(ended <-chan struct{}, posted chan<- struct{}) {
	defer close(posted)
	var told *v1.PodStatus
	for last := false; !last; {
		select {
		case <-w.dirty:
		case <-ended:
			last = true
		}
		status := w.status()
		if told != nil && reflect.DeepEqual(*told, status) {
			continue
		}
		w.tell(status)
		told = &status
	}
}

// tell patches the status, and tries until it is there or nobody wants to know.
func (w *worker) tell(status v1.PodStatus) {
	pod := w.pod()
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		klog.Errorf("status of pod %s: %v", pod.Name, err)
		return
	}
	for !w.silent.Load() {
		_, err := w.kubelet.client.CoreV1().Pods(pod.Namespace).Patch(
			context.Background(), pod.Name, types.StrategicMergePatchType, patch, meta.PatchOptions{}, "status")
		if err == nil || errors.IsNotFound(err) || errors.IsConflict(err) {
			return
		}
		klog.Warningf("status of pod %s: %v", pod.Name, err)
		time.Sleep(patience)
	}
}

func (w *worker) status() v1.PodStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judge()
	status := v1.PodStatus{
		Phase: w.phase(), Reason: w.failed, Message: w.message, StartTime: &w.began,
		HostIP: w.kubelet.address, HostIPs: []v1.HostIP{{IP: w.kubelet.address}},
		InitContainerStatuses: statuses(w.inits), ContainerStatuses: statuses(w.mains),
		ObservedGeneration: w.pod().Generation,
	}
	if w.ip != "" {
		status.PodIP, status.PodIPs = w.ip, []v1.PodIP{{IP: w.ip}}
	}
	for _, kind := range []v1.PodConditionType{
		v1.PodReadyToStartContainers, v1.PodInitialized, v1.PodReady, v1.ContainersReady,
	} {
		if condition, known := w.conditions[kind]; known {
			status.Conditions = append(status.Conditions, condition)
		}
	}
	return status
}

func statuses(containers []*container) []v1.ContainerStatus {
	list := []v1.ContainerStatus{}
	for _, c := range containers {
		status := v1.ContainerStatus{
			Name: c.spec.Name, State: c.state, LastTerminationState: c.last, Ready: c.ready,
			RestartCount: c.restarts, Image: c.spec.Image, Started: &c.started,
		}
		if c.init && !c.sidecar {
			status.Ready = c.state.Terminated != nil && c.state.Terminated.ExitCode == 0
		}
		if c.state.Waiting == nil {
			status.ImageID = "process://" + c.spec.Image
			status.ContainerID = c.id(fmt.Sprintf("%s-%d", c.spec.Name, c.restarts))
		}
		list = append(list, *status.DeepCopy())
	}
	return list
}

func (w *worker) phase() v1.PodPhase {
	if w.final {
		return w.finalPhase()
	}
	if !w.initialized {
		return v1.PodPending
	}
	for _, c := range w.mains {
		if c.state.Waiting != nil && c.last.Terminated == nil {
			return v1.PodPending
		}
	}
	return v1.PodRunning
}

func (w *worker) finalPhase() v1.PodPhase {
	if w.failed != "" {
		return v1.PodFailed
	}
	for _, c := range w.mains {
		if c.state.Terminated == nil || c.state.Terminated.ExitCode != 0 {
			return v1.PodFailed
		}
	}
	return v1.PodSucceeded
}

// judge computes the conditions that follow from the containers.
func (w *worker) judge() {
	waiting, unready := []string{}, []string{}
	for _, c := range w.inits {
		if ended := c.state.Terminated; !w.initialized && (ended == nil || ended.ExitCode != 0) {
			waiting = append(waiting, c.spec.Name)
		}
	}
	for _, c := range w.mains {
		if !c.ready {
			unready = append(unready, c.spec.Name)
		}
	}
	if w.initialized || len(w.inits) == 0 {
		w.put(v1.PodInitialized, true, "", "")
	} else {
		w.put(v1.PodInitialized, false, "ContainersNotInitialized",
			fmt.Sprintf("containers with incomplete status: %v", waiting))
	}
	reason, message := "", ""
	if len(unready) > 0 {
		reason, message = "ContainersNotReady", fmt.Sprintf("containers with unready status: %v", unready)
	}
	if w.final {
		reason, message = "PodFailed", ""
		if w.finalPhase() == v1.PodSucceeded {
			reason = "PodCompleted"
		}
	}
	w.put(v1.ContainersReady, reason == "", reason, message)
	if gate := w.closedGate(); reason == "" && gate != "" {
		reason, message = "ReadinessGatesNotReady", fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist or is not True.", gate)
	}
	w.put(v1.PodReady, reason == "", reason, message)
}

// closedGate is a readiness gate of the pod whose condition nobody has set to true.
func (w *worker) closedGate() v1.PodConditionType {
	pod := w.pod()
	for _, gate := range pod.Spec.ReadinessGates {
		open := false
		for _, condition := range pod.Status.Conditions {
			open = open || condition.Type == gate.ConditionType && condition.Status == v1.ConditionTrue
		}
		if !open {
			return gate.ConditionType
		}
	}
	return ""
}

func (w *worker) setCondition(kind v1.PodConditionType, is bool, reason, message string) {
	w.set(func() { w.put(kind, is, reason, message) })
}

// put notes a condition; its transition time changes only with its status.
func (w *worker) put(kind v1.PodConditionType, is bool, reason, message string) {
	status := v1.ConditionFalse
	if is {
		status = v1.ConditionTrue
	}
	condition, known := w.conditions[kind]
	if !known || condition.Status != status {
		condition.LastTransitionTime = meta.Now().Rfc3339Copy()
	}
	condition.Type, condition.Status, condition.Reason, condition.Message = kind, status, reason, message
	condition.ObservedGeneration = w.pod().Generation
	w.conditions[kind] = condition
}
