package operator

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const envAutoscalerCommand = "KUBERAY_GEN_AUTOSCALER_START_CMD"

func literal(name, value string) corev1.EnvVar { return corev1.EnvVar{Name: name, Value: value} }

func fromField(name, path string) corev1.EnvVar {
	field := &corev1.ObjectFieldSelector{FieldPath: path}
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: field}}
}

func fromLabel(name, label string) corev1.EnvVar {
	return fromField(name, "metadata.labels['"+label+"']")
}

// addHeadNames says where the head is: by its full name, and by its service's alone for old images.
func addHeadNames(cluster *rayCluster, container *corev1.Container) {
	address := headAddress(cluster)
	short, _, _ := strings.Cut(address, ".")
	container.Env = append(container.Env, literal("FQ_RAY_IP", address), literal("RAY_IP", short))
}

// addEnv gives Ray its bearings. The variables which are appended whatever the template says win over the
// template's, since of two with one name the later counts.
func addEnv(cluster *rayCluster, container *corev1.Container, kind nodeType, start string) {
	address := "127.0.0.1"
	if kind == worker {
		address = headAddress(cluster)
		addHeadNames(cluster, container)
	}
	container.Env = append(container.Env,
		fromLabel("RAY_CLUSTER_NAME", labelCluster),
		fromField("RAY_CLUSTER_NAMESPACE", "metadata.namespace"),
		fromField("RAY_CLOUD_INSTANCE_ID", "metadata.name"),
		fromLabel("RAY_NODE_TYPE_NAME", labelGroup),
		literal("KUBERAY_GEN_RAY_START_CMD", start))
	addMissing(container, literal("RAY_PORT", gcsPort(cluster)))
	if originCRD(cluster) == "RayService" {
		addMissing(container,
			literal("RAY_timeout_ms_task_wait_for_death_info", "0"),
			literal("RAY_gcs_server_request_timeout_seconds", "5"),
			literal("RAY_SERVE_KV_TIMEOUT_S", "5"))
	}
	addMissing(container,
		literal("RAY_ADDRESS", address+":"+gcsPort(cluster)),
		literal("RAY_USAGE_STATS_KUBERAY_IN_USE", "1"))
	if kind == head {
		tags := "kuberay_version=" + release + ";kuberay_crd=" + originCRD(cluster)
		container.Env = append(container.Env, literal("RAY_USAGE_STATS_EXTRA_TAGS", tags))
	}
	addMissing(container, literal("RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE", "1"))
}

// addAuth hands the cluster's token to Ray and to the init container that asks for its health.
func addAuth(cluster *rayCluster, pod *corev1.Pod) {
	if !cluster.Spec.authenticates() {
		return
	}
	authenticate(cluster, rayContainer(pod))
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == "wait-gcs-ready" {
			authenticate(cluster, &pod.Spec.InitContainers[i])
		}
	}
	if cluster.Spec.delegatesAuth() {
		token := corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}
		projected := &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{token}}
		addVolume(pod, corev1.Volume{Name: "ray-token", VolumeSource: corev1.VolumeSource{Projected: projected}})
	}
}

func authenticate(cluster *rayCluster, container *corev1.Container) {
	addMissing(container, literal("RAY_AUTH_MODE", "token"))
	if !cluster.Spec.delegatesAuth() {
		addMissing(container, corev1.EnvVar{Name: "RAY_AUTH_TOKEN", ValueFrom: &corev1.EnvVarSource{
			SecretKeyRef: &corev1.SecretKeySelector{
				LocalObjectReference: corev1.LocalObjectReference{Name: tokenSecretName(cluster)},
				Key:                  tokenKey,
			},
		}})
		return
	}
	addMissing(container, literal("RAY_ENABLE_K8S_TOKEN_AUTH", "true"))
	for _, mount := range container.VolumeMounts {
		if mount.Name == "ray-token" {
			return
		}
	}
	container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{
		Name: "ray-token", MountPath: "/var/run/secrets/ray.io/serviceaccount", ReadOnly: true,
	})
}
