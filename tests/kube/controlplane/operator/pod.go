package operator

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// bash is how KubeRay runs every command that it writes.
var bash = []string{"/bin/bash", "-c", "--"}

// raisedFileLimit runs before `ray start`, whose daemons inherit it.
const raisedFileLimit = "ulimit -n ${RAY_START_ULIMIT_OPEN_FILES:-65536}; "

// host places a worker within its group.
type host struct {
	replicaName  string
	replicaIndex int
	hostIndex    int
}

// rayContainer is the one that runs Ray: always the first.
func rayContainer(pod *corev1.Pod) *corev1.Container { return &pod.Spec.Containers[0] }

func headPod(cluster *rayCluster) *corev1.Pod {
	group := &cluster.Spec.HeadGroupSpec
	pod := podFrom(cluster, &group.Template, head, headGroupKey, group.Labels)
	pod.GenerateName = podPrefix(cluster.Name, head)
	params := startParams(group.RayStartParams, group.Resources, group.Labels, rayContainer(pod))
	setDefault(params, "dashboard-host", "0.0.0.0")
	if cluster.Spec.autoscales() {
		params["no-monitor"] = "true"
		addAutoscaler(cluster, pod)
	}
	addHeadFaultTolerance(cluster, pod, params)
	addAuth(cluster, pod)
	finishPod(cluster, pod, head, params)
	return pod
}

func workerPod(cluster *rayCluster, group *workerGroup, place host) *corev1.Pod {
	pod := podFrom(cluster, &group.Template, worker, group.GroupName, group.Labels)
	pod.GenerateName = podPrefix(cluster.Name+"-"+group.GroupName, worker)
	pod.Name = ""
	labelHost(pod, group, place)
	pod.Spec.InitContainers = append(pod.Spec.InitContainers, waitForHead(cluster, rayContainer(pod)))
	params := startParams(group.RayStartParams, group.Resources, group.Labels, rayContainer(pod))
	setDefault(params, "address", headAddress(cluster)+":"+gcsPort(cluster))
	if cluster.Spec.autoscales() && cluster.Spec.autoscalerVersion() == "v2" {
		pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	}
	addWorkerFaultTolerance(cluster, pod)
	addAuth(cluster, pod)
	finishPod(cluster, pod, worker, params)
	return pod
}

// podFrom turns a group's template into a pod that carries KubeRay's labels and belongs to the cluster.
func podFrom(
	cluster *rayCluster, template *corev1.PodTemplateSpec, kind nodeType, group string, labels map[string]string,
) *corev1.Pod {
	copied := template.DeepCopy()
	pod := &corev1.Pod{ObjectMeta: copied.ObjectMeta, Spec: copied.Spec}
	pod.Namespace = cluster.Namespace
	pod.OwnerReferences = []metav1.OwnerReference{ownedBy(cluster)}
	pod.Labels = podLabels(cluster, kind, group, template.Labels, labels)
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	if strings.EqualFold(cluster.Annotations[annotationOverwriteCommand], "true") {
		pod.Annotations[annotationOverwriteCommand] = "true"
	}
	return pod
}

func ownedBy(cluster *rayCluster) metav1.OwnerReference {
	return *metav1.NewControllerRef(cluster, clusterKind)
}

// podLabels lets the template and the group's labels change all but those by which the operator finds its pods.
func podLabels(cluster *rayCluster, kind nodeType, group string, overrides ...map[string]string) map[string]string {
	labels := map[string]string{
		labelIsNode:     "yes",
		labelIdentifier: identifier(cluster, kind),
		labelAppName:    appName,
		labelCreatedBy:  operatorName,
	}
	for _, override := range overrides {
		maps.Copy(labels, override)
	}
	labels[labelCluster] = cluster.Name
	labels[labelNodeType] = string(kind)
	labels[labelGroup] = group
	return labels
}

func labelHost(pod *corev1.Pod, group *workerGroup, place host) {
	pod.Labels[labelReplicaIndex] = strconv.Itoa(place.replicaIndex)
	if group.NumOfHosts > 1 {
		pod.Labels[labelReplicaName] = place.replicaName
		pod.Labels[labelHostIndex] = strconv.Itoa(place.hostIndex)
	}
}

// finishPod adds what head and workers have in common, once the flags of their `ray start` are known.
func finishPod(cluster *rayCluster, pod *corev1.Pod, kind nodeType, params map[string]string) {
	container := rayContainer(pod)
	addMetricsPort(container)
	if _, elsewhere := params["plasma-directory"]; !elsewhere {
		mountEmptyDir(pod, container, "shared-mem", "/dev/shm", sharedMemory(container))
	}
	command := startCommand(kind, params)
	setCommand(pod, command)
	for i := range pod.Spec.InitContainers {
		addHeadNames(cluster, &pod.Spec.InitContainers[i])
	}
	addEnv(cluster, container, kind, command)
	addProbes(cluster, container, kind, params)
	if originCRD(cluster) == "RayService" {
		pod.Labels[labelServe] = strconv.FormatBool(kind == worker)
	}
}

func addMetricsPort(container *corev1.Container) {
	for _, port := range container.Ports {
		if port.Name == "metrics" {
			return
		}
	}
	container.Ports = append(container.Ports, corev1.ContainerPort{Name: "metrics", ContainerPort: portMetrics})
}

// setCommand makes the container start Ray after whatever it would have run, unless it starts Ray by itself.
func setCommand(pod *corev1.Pod, start string) {
	container := rayContainer(pod)
	own := strings.Join(append(append([]string{}, container.Command...), container.Args...), " ")
	overwritten := strings.EqualFold(pod.Annotations[annotationOverwriteCommand], "true")
	if overwritten || strings.Contains(own, "ray start") {
		return
	}
	line := raisedFileLimit + start
	if own != "" {
		line = own + " && " + line
	}
	container.Command, container.Args = bash, []string{line}
}

func sharedMemory(container *corev1.Container) *corev1.EmptyDirVolumeSource {
	source := &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}
	for _, list := range []corev1.ResourceList{container.Resources.Limits, container.Resources.Requests} {
		if memory, set := list[corev1.ResourceMemory]; set {
			source.SizeLimit = &memory
			break
		}
	}
	return source
}

// mountEmptyDir leaves alone what the template mounts at the same path, or calls by the same name.
func mountEmptyDir(
	pod *corev1.Pod, container *corev1.Container, name, path string, source *corev1.EmptyDirVolumeSource,
) {
	for _, mount := range container.VolumeMounts {
		if mount.MountPath == path {
			return
		}
	}
	addVolume(pod, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: source}})
	container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: path})
}

func addVolume(pod *corev1.Pod, volume corev1.Volume) {
	for _, existing := range pod.Spec.Volumes {
		if existing.Name == volume.Name {
			return
		}
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, volume)
}

// waitScript looks every five seconds, like KubeRay's, and shows what Ray says once two minutes have gone by.
const waitScript = `
look() { ray health-check --address %s; }
until if (( SECONDS > 120 )); then look; else look >/dev/null 2>&1; fi; do
  echo "no GCS after $SECONDS s"
  sleep 5
done
echo "the GCS answers"
`

// waitForHead holds a worker back until the head's GCS answers.
func waitForHead(cluster *rayCluster, ray *corev1.Container) corev1.Container {
	like := ray.DeepCopy()
	return corev1.Container{
		Name:            "wait-gcs-ready",
		Image:           like.Image,
		ImagePullPolicy: like.ImagePullPolicy,
		SecurityContext: like.SecurityContext,
		Env:             like.Env,
		VolumeMounts:    like.VolumeMounts,
		Resources:       fixedResources("200m", "256Mi"),
		Command:         bash,
		Args:            []string{fmt.Sprintf(waitScript, headAddress(cluster)+":"+gcsPort(cluster))},
	}
}

func fixedResources(cpu, memory string) corev1.ResourceRequirements {
	list := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse(cpu),
		corev1.ResourceMemory: resource.MustParse(memory),
	}
	return corev1.ResourceRequirements{Requests: list, Limits: list.DeepCopy()}
}
