package operator

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Ray's ports, where the cluster names no others.
const (
	portGCS       = 6379
	portClient    = 10001
	portDashboard = 8265
	portMetrics   = 8080
	portAgent     = 52365
	portServe     = 8000
)

// keptBooleans are the flags of `ray start` that take a value; of the others only "true" is passed, as a bare switch.
var keptBooleans = []string{"include-dashboard", "include-log-monitor", "log-color"}

// acceleratorResources maps what Kubernetes counts to what Ray counts.
var acceleratorResources = map[string]string{
	"aws.amazon.com/neuroncore": "neuron_cores",
	"google.com/tpu":            "TPU",
}

func gcsPort(cluster *rayCluster) string {
	if port, set := cluster.Spec.HeadGroupSpec.RayStartParams["port"]; set {
		return port
	}
	return strconv.Itoa(portGCS)
}

// startParams are the flags of a node's `ray start`: the group's own, then its resources and labels, then defaults.
func startParams(own, resources, labels map[string]string, container *corev1.Container) map[string]string {
	params := maps.Clone(own)
	if params == nil {
		params = map[string]string{}
	}
	setResources(params, resources)
	if len(labels) > 0 {
		params["labels"] = joinLabels(labels)
	}
	setDefault(params, "metrics-export-port", strconv.Itoa(portMetrics))
	setDefault(params, "dashboard-agent-listen-port", strconv.Itoa(portAgent))
	params["block"] = "true"
	setContainerResources(params, &container.Resources)
	return params
}

func setDefault(params map[string]string, key, value string) {
	if _, set := params[key]; !set {
		params[key] = value
	}
}

func joinLabels(labels map[string]string) string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, key+"="+labels[key])
	}
	return strings.Join(pairs, ",")
}

// whole rounds up: half a CPU becomes one.
func whole(quantity resource.Quantity) string { return strconv.FormatInt(quantity.Value(), 10) }

// setResources applies a group's top-level resources. One that is no quantity is passed over in silence.
func setResources(params, resources map[string]string) {
	custom := map[string]float64{}
	for name, text := range resources {
		quantity, err := resource.ParseQuantity(text)
		if err != nil {
			continue
		}
		switch lower := strings.ToLower(name); {
		case lower == "cpu":
			params["num-cpus"] = whole(quantity)
		case lower == "memory":
			params["memory"] = whole(quantity)
		case isGPU(lower):
			params["num-gpus"] = whole(quantity)
		default:
			custom[name] = quantity.AsApproximateFloat64()
		}
	}
	if len(custom) > 0 {
		params["resources"] = quoteJSON(custom)
	}
}

func quoteJSON(values map[string]float64) string {
	text, _ := json.Marshal(values) // numbers by name always encode
	return "'" + string(text) + "'"
}

// setContainerResources tells Ray what the container may use, as far as the group has not: CPUs by the limit or else
// the request, memory and accelerators by the limit alone.
func setContainerResources(params map[string]string, resources *corev1.ResourceRequirements) {
	cpu := resources.Limits[corev1.ResourceCPU]
	if cpu.IsZero() {
		cpu = resources.Requests[corev1.ResourceCPU]
	}
	if !cpu.IsZero() {
		setDefault(params, "num-cpus", whole(cpu))
	}
	if memory := resources.Limits[corev1.ResourceMemory]; !memory.IsZero() {
		setDefault(params, "memory", whole(memory))
	}
	setAccelerators(params, resources.Limits)
}

// setAccelerators gives up altogether where the group's own resources are no JSON.
func setAccelerators(params map[string]string, limits corev1.ResourceList) {
	custom := map[string]float64{}
	if text, set := params["resources"]; set && json.Unmarshal([]byte(strings.Trim(text, "'\"` ")), &custom) != nil {
		return
	}
	named := hasAccelerator(custom)
	for _, key := range slices.Sorted(maps.Keys(limits)) {
		amount := limits[key]
		if amount.IsZero() {
			continue
		}
		if isGPU(string(key)) {
			setDefault(params, "num-gpus", whole(amount))
		}
		if ray, known := acceleratorResources[string(key)]; known && !named {
			custom[ray] = amount.AsApproximateFloat64()
			params["resources"] = quoteJSON(custom)
			named = true
		}
	}
}

func hasAccelerator(custom map[string]float64) bool {
	for _, ray := range acceleratorResources {
		if _, set := custom[ray]; set {
			return true
		}
	}
	return false
}

// startCommand is the command line of a node, with its flags in order of their names.
func startCommand(kind nodeType, params map[string]string) string {
	words := []string{"ray", "start"}
	if kind == head {
		words = append(words, "--head")
	}
	for _, key := range slices.Sorted(maps.Keys(params)) {
		lower := strings.ToLower(params[key])
		isSwitch := (lower == "true" || lower == "false") && !slices.Contains(keptBooleans, key)
		switch {
		case !isSwitch:
			words = append(words, fmt.Sprintf("--%s=%s", key, params[key]))
		case lower == "true":
			words = append(words, "--"+key)
		}
	}
	return strings.Join(words, " ")
}
