package operator

import (
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const autoscalerCommand = "ray kuberay-autoscaler --cluster-name $(RAY_CLUSTER_NAME)" +
	" --cluster-namespace $(RAY_CLUSTER_NAMESPACE)"

// addAutoscaler puts Ray's autoscaler beside the head, with an account that may change the cluster. The two share
// /tmp/ray, where the one reports and the other reads.
func addAutoscaler(cluster *rayCluster, pod *corev1.Pod) {
	ray := rayContainer(pod)
	sidecar := autoscalerContainer(ray.Image)
	if cluster.Spec.authenticates() {
		authenticate(cluster, &sidecar)
	}
	overrideAutoscaler(&sidecar, cluster.Spec.AutoscalerOptions)
	mountEmptyDir(pod, &sidecar, "ray-logs", "/tmp/ray", &corev1.EmptyDirVolumeSource{})
	mountEmptyDir(pod, ray, "ray-logs", "/tmp/ray", &corev1.EmptyDirVolumeSource{})
	switch cluster.Spec.autoscalerVersion() {
	case "v1":
		ray.Env = append(ray.Env, literal(envAutoscalerV2, "false"))
	case "v2":
		ray.Env = append(ray.Env, literal(envAutoscalerV2, "true"))
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	}
	pod.Spec.ServiceAccountName = clipName(accountName(cluster))
	pod.Spec.Containers = append(pod.Spec.Containers, sidecar)
}

func autoscalerContainer(image string) corev1.Container {
	return corev1.Container{
		Name:            "autoscaler",
		Image:           image,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Env: []corev1.EnvVar{
			fromLabel("RAY_CLUSTER_NAME", labelCluster),
			fromField("RAY_CLUSTER_NAMESPACE", "metadata.namespace"),
			fromField("RAY_HEAD_POD_NAME", "metadata.name"),
			literal("KUBERAY_CRD_VER", "v1"),
			literal(envAutoscalerCommand, autoscalerCommand),
		},
		Command:   bash,
		Args:      []string{autoscalerCommand},
		Resources: fixedResources("500m", "512Mi"),
	}
}

// overrideAutoscaler lets the user's options replace what they set, and add to the lists.
func overrideAutoscaler(sidecar *corev1.Container, options *autoscalerOptions) {
	if options == nil {
		return
	}
	replace(&sidecar.Resources, options.Resources)
	replace(&sidecar.Image, options.Image)
	replace(&sidecar.ImagePullPolicy, options.ImagePullPolicy)
	if options.SecurityContext != nil {
		sidecar.SecurityContext = options.SecurityContext
	}
	if len(options.Command) > 0 {
		sidecar.Command = options.Command
	}
	if len(options.Args) > 0 {
		sidecar.Args = options.Args
	}
	sidecar.Env = append(sidecar.Env, options.Env...)
	sidecar.EnvFrom = append(sidecar.EnvFrom, options.EnvFrom...)
	sidecar.VolumeMounts = append(sidecar.VolumeMounts, options.VolumeMounts...)
}

func replace[T any](target, value *T) {
	if value != nil {
		*target = *value
	}
}

// accountName is the head's service account: the user's, or one made under the cluster's name.
func accountName(cluster *rayCluster) string {
	if name := cluster.Spec.HeadGroupSpec.Template.Spec.ServiceAccountName; name != "" {
		return name
	}
	return cluster.Name
}

func ownedMeta(cluster *rayCluster, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name:            clipName(name),
		Namespace:       cluster.Namespace,
		OwnerReferences: []metav1.OwnerReference{ownedBy(cluster)},
		Labels: map[string]string{
			labelCluster:   cluster.Name,
			labelAppName:   appName,
			labelCreatedBy: operatorName,
		},
	}
}

func autoscalerAccount(cluster *rayCluster) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: ownedMeta(cluster, accountName(cluster))}
}

// autoscalerRole reaches every RayCluster of the namespace, not this one alone: so does KubeRay's.
func autoscalerRole(cluster *rayCluster) *rbacv1.Role {
	return &rbacv1.Role{
		ObjectMeta: ownedMeta(cluster, cluster.Name),
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "list", "watch", "patch"}},
			{APIGroups: []string{""}, Resources: []string{"pods/resize"}, Verbs: []string{"patch"}},
			{APIGroups: []string{clusterKind.Group}, Resources: []string{"rayclusters"}, Verbs: []string{"get", "patch"}},
		},
	}
}

func autoscalerRoleBinding(cluster *rayCluster) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: ownedMeta(cluster, cluster.Name),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: clipName(cluster.Name)},
		Subjects: []rbacv1.Subject{{
			Kind:      rbacv1.ServiceAccountKind,
			Name:      clipName(accountName(cluster)),
			Namespace: cluster.Namespace,
		}},
	}
}
