package kubelet

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
)

const (
	heartbeat = time.Minute
	kubeletV  = "v1.36.3"
	logsPort  = 10250
)

// NodeConfig is a node to be: its capacity, labels and taints.
type NodeConfig struct {
	CPU    string            `json:"cpu"`
	Memory string            `json:"memory"`
	Pods   string            `json:"pods"`
	GPUs   int64             `json:"gpus"`
	Labels map[string]string `json:"labels"`
	Taints []v1.Taint        `json:"taints"`
}

type node struct {
	name   string
	config NodeConfig
	events record.EventRecorder
	images *images
	lost   bool
}

// setNode makes a node, or changes one that is there; what others did to one that is as it was
// stays.
func (k *Kubelet) setNode(ctx context.Context, name string, config NodeConfig) error {
	if k.isSet(name, config) {
		return nil
	}
	object, err := nodeObject(name, config, k.address)
	if err != nil {
		return err
	}
	nodes := k.client.CoreV1().Nodes()
	if _, err := nodes.Create(ctx, object, meta.CreateOptions{}); errors.IsAlreadyExists(err) {
		err = k.updateNode(ctx, object)
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	known := k.nodes[name]
	if known == nil || known.lost {
		known = &node{name: name, events: k.recorder(name), images: newImages(k)}
		k.nodes[name] = known
	}
	known.config = config
	return nil
}

func (k *Kubelet) isSet(name string, config NodeConfig) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	known := k.nodes[name]
	return known != nil && !known.lost && reflect.DeepEqual(known.config, config)
}

func (k *Kubelet) updateNode(ctx context.Context, wanted *v1.Node) error {
	nodes := k.client.CoreV1().Nodes()
	found, err := nodes.Get(ctx, wanted.Name, meta.GetOptions{})
	if err != nil {
		return err
	}
	found.Labels, found.Spec.Taints = wanted.Labels, wanted.Spec.Taints
	if found, err = nodes.Update(ctx, found, meta.UpdateOptions{}); err != nil {
		return err
	}
	found.Status = wanted.Status
	_, err = nodes.UpdateStatus(ctx, found, meta.UpdateOptions{})
	return err
}

func nodeObject(name string, config NodeConfig, address string) (*v1.Node, error) {
	capacity := v1.ResourceList{}
	for resourceName, text := range map[v1.ResourceName]string{
		v1.ResourceCPU: config.CPU, v1.ResourceMemory: config.Memory, v1.ResourcePods: config.Pods,
		v1.ResourceEphemeralStorage: "100Gi",
	} {
		quantity, err := resource.ParseQuantity(text)
		if err != nil {
			return nil, fmt.Errorf("node %s: %s %q: %w", name, resourceName, text, err)
		}
		capacity[resourceName] = quantity
	}
	if config.GPUs > 0 {
		capacity["nvidia.com/gpu"] = *resource.NewQuantity(config.GPUs, resource.DecimalSI)
	}
	labels := map[string]string{
		v1.LabelHostname: name, v1.LabelOSStable: "linux", v1.LabelArchStable: "amd64",
	}
	maps.Copy(labels, config.Labels)
	return &v1.Node{
		ObjectMeta: meta.ObjectMeta{Name: name, Labels: labels},
		Spec:       v1.NodeSpec{Taints: config.Taints},
		Status: v1.NodeStatus{
			Capacity: capacity, Allocatable: capacity, Conditions: nodeConditions(v1.ConditionTrue),
			Addresses: []v1.NodeAddress{
				{Type: v1.NodeInternalIP, Address: address}, {Type: v1.NodeHostName, Address: name},
			},
			DaemonEndpoints: v1.NodeDaemonEndpoints{KubeletEndpoint: v1.DaemonEndpoint{Port: logsPort}},
			NodeInfo: v1.NodeSystemInfo{
				KubeletVersion: kubeletV, OperatingSystem: "linux", Architecture: "amd64",
				ContainerRuntimeVersion: "process://1",
			},
		},
	}, nil
}

func nodeConditions(ready v1.ConditionStatus) []v1.NodeCondition {
	now := meta.Now()
	reason, message := "KubeletReady", "kubelet is posting ready status"
	if ready != v1.ConditionTrue {
		reason, message = "NodeStatusUnknown", "Kubelet stopped posting node status."
	}
	conditions := []v1.NodeCondition{{
		Type: v1.NodeReady, Status: ready, Reason: reason, Message: message,
		LastHeartbeatTime: now, LastTransitionTime: now,
	}}
	for _, pressure := range []v1.NodeConditionType{v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure} {
		conditions = append(conditions, v1.NodeCondition{
			Type: pressure, Status: v1.ConditionFalse, Reason: "Sufficient",
			LastHeartbeatTime: now, LastTransitionTime: now,
		})
	}
	return conditions
}

// beat posts the status of each node now and then.
func (k *Kubelet) beat(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(heartbeat):
		}
		for _, name := range k.liveNodes() {
			if err := k.postBeat(ctx, name); err != nil {
				klog.Warningf("heartbeat of node %s: %v", name, err)
			}
		}
	}
}

func (k *Kubelet) postBeat(ctx context.Context, name string) error {
	found, err := k.client.CoreV1().Nodes().Get(ctx, name, meta.GetOptions{})
	if err != nil {
		return err
	}
	for i := range found.Status.Conditions {
		found.Status.Conditions[i].LastHeartbeatTime = meta.Now()
	}
	_, err = k.client.CoreV1().Nodes().UpdateStatus(ctx, found, meta.UpdateOptions{})
	return err
}

func (k *Kubelet) liveNodes() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	names := []string{}
	for name, node := range k.nodes {
		if !node.lost {
			names = append(names, name)
		}
	}
	return names
}

// loseNode ends a node as a power cut does: its processes are gone and nothing is reported. With
// remove, its object and its pods are then deleted, as a cloud's controller does.
func (k *Kubelet) loseNode(ctx context.Context, name string, remove bool) error {
	k.mu.Lock()
	lost := k.nodes[name]
	if lost == nil {
		k.mu.Unlock()
		return fmt.Errorf("no node is called %q", name)
	}
	lost.lost = true
	k.mu.Unlock()
	for _, worker := range k.allWorkers() {
		if worker.node == lost {
			worker.abandon()
		}
	}
	if err := k.markUnreachable(ctx, name); err != nil || !remove {
		return err
	}
	if err := k.client.CoreV1().Nodes().Delete(ctx, name, meta.DeleteOptions{}); err != nil {
		return err
	}
	pods, err := k.client.CoreV1().Pods("").List(ctx, meta.ListOptions{FieldSelector: "spec.nodeName=" + name})
	if err != nil {
		return err
	}
	for i := range pods.Items {
		k.remove(&pods.Items[i])
	}
	return nil
}

func (k *Kubelet) markUnreachable(ctx context.Context, name string) error {
	found, err := k.client.CoreV1().Nodes().Get(ctx, name, meta.GetOptions{})
	if err != nil {
		return err
	}
	found.Status.Conditions = nodeConditions(v1.ConditionUnknown)
	if found, err = k.client.CoreV1().Nodes().UpdateStatus(ctx, found, meta.UpdateOptions{}); err != nil {
		return err
	}
	for _, effect := range []v1.TaintEffect{v1.TaintEffectNoSchedule, v1.TaintEffectNoExecute} {
		found.Spec.Taints = append(found.Spec.Taints, v1.Taint{Key: v1.TaintNodeUnreachable, Effect: effect})
	}
	_, err = k.client.CoreV1().Nodes().Update(ctx, found, meta.UpdateOptions{})
	return err
}
