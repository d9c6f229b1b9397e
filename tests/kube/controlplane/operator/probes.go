package operator

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// addProbes gives a container its probes where it has none. Their delays are KubeRay's: a pod is not ready before
// ten seconds have passed.
func addProbes(cluster *rayCluster, container *corev1.Container, kind nodeType, params map[string]string) {
	timeout := int32(2)
	if kind == head {
		timeout = 5
	}
	if container.LivenessProbe == nil {
		container.LivenessProbe = &corev1.Probe{InitialDelaySeconds: 30, PeriodSeconds: 5, TimeoutSeconds: timeout,
			SuccessThreshold: 1, FailureThreshold: 120, ProbeHandler: healthCheck(cluster, kind, params)}
	}
	if container.ReadinessProbe != nil {
		return
	}
	container.ReadinessProbe = &corev1.Probe{InitialDelaySeconds: 10, PeriodSeconds: 5, TimeoutSeconds: timeout,
		SuccessThreshold: 1, FailureThreshold: 10, ProbeHandler: healthCheck(cluster, kind, params)}
	if kind == worker && originCRD(cluster) == "RayService" {
		container.ReadinessProbe.FailureThreshold = 1
		container.ReadinessProbe.ProbeHandler = inBash(wget(2, flagPort(params, "dashboard-agent-listen-port", portAgent),
			"api/local_raylet_healthz") + " && " + wget(10, servePort(container), "-/healthz"))
	}
}

// healthCheck asks the node's agent over HTTP where the spec names a Ray that answers there, and else by wget, which
// the image then has to have.
func healthCheck(cluster *rayCluster, kind nodeType, params map[string]string) corev1.ProbeHandler {
	agent := flagPort(params, "dashboard-agent-listen-port", portAgent)
	if cluster.Spec.rayIsAtLeast("2.53.0") {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/api/healthz", Port: intstr.FromInt32(agent)}}
	}
	command := wget(2, agent, "api/local_raylet_healthz")
	if kind == head {
		command += " && " + wget(10, flagPort(params, "dashboard-port", portDashboard), "api/gcs_healthz")
	}
	return inBash(command)
}

func inBash(command string) corev1.ProbeHandler {
	return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"bash", "-c", command}}}
}

func wget(timeoutS int, port int32, path string) string {
	return fmt.Sprintf("wget --tries 1 -T %d -q -O- http://localhost:%d/%s | grep success", timeoutS, port, path)
}

func flagPort(params map[string]string, flag string, otherwise int32) int32 {
	if port, err := strconv.ParseInt(params[flag], 10, 32); err == nil {
		return int32(port)
	}
	return otherwise
}

func servePort(container *corev1.Container) int32 {
	for _, port := range container.Ports {
		if port.Name == "serve" {
			return port.ContainerPort
		}
	}
	return portServe
}
