package operator

import (
	"cmp"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// addHeadFaultTolerance points the head's GCS at its Redis. The annotation is there in any case, saying yes or no.
func addHeadFaultTolerance(cluster *rayCluster, pod *corev1.Pod, params map[string]string) {
	pod.Annotations[annotationFaultTolerance] = strconv.FormatBool(cluster.toleratesHeadLoss())
	if !cluster.toleratesHeadLoss() {
		return
	}
	container, options := rayContainer(pod), cluster.Spec.GcsFaultToleranceOptions
	namespace := storageNamespace(cluster)
	pod.Annotations[annotationStorageNamespace] = namespace
	addMissing(container, literal("RAY_external_storage_namespace", namespace))
	if options == nil {
		if password, set := params["redis-password"]; set {
			addMissing(container, literal("REDIS_PASSWORD", password))
		}
		return
	}
	container.Env = append(container.Env, literal("RAY_REDIS_ADDRESS", options.RedisAddress))
	passCredential(container, params, "redis-username", "REDIS_USERNAME", options.RedisUsername)
	passCredential(container, params, "redis-password", "REDIS_PASSWORD", options.RedisPassword)
}

// passCredential keeps a credential out of the command line, which names only the variable.
func passCredential(
	container *corev1.Container, params map[string]string, flag, name string, given *redisCredential,
) {
	if given == nil {
		return
	}
	params[flag] = "$" + name
	container.Env = append(container.Env, corev1.EnvVar{Name: name, Value: given.Value, ValueFrom: given.ValueFrom})
}

func storageNamespace(cluster *rayCluster) string {
	if options := cluster.Spec.GcsFaultToleranceOptions; options != nil && options.ExternalStorageNamespace != "" {
		return options.ExternalStorageNamespace
	}
	return cmp.Or(cluster.Annotations[annotationStorageNamespace], string(cluster.UID))
}

// addWorkerFaultTolerance gives a worker the time in which a new head comes up; else it leaves after a minute.
func addWorkerFaultTolerance(cluster *rayCluster, pod *corev1.Pod) {
	if cluster.toleratesHeadLoss() {
		addMissing(rayContainer(pod), literal("RAY_gcs_rpc_server_reconnect_timeout_s", "600"))
	}
}
