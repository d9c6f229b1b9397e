package operator

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// headLabels are both the labels and the selector of the head's service.
func headLabels(cluster *rayCluster) map[string]string {
	labels := map[string]string{
		labelCluster:    cluster.Name,
		labelNodeType:   string(head),
		labelIdentifier: identifier(cluster, head),
		labelAppName:    appName,
		labelCreatedBy:  operatorName,
	}
	if name, set := cluster.Spec.HeadGroupSpec.Template.Labels[labelAppName]; set {
		labels[labelAppName] = name
	}
	return labels
}

// headService has no address of its own unless another type is asked for: its name leads straight to the head pod,
// ready or not.
func headService(cluster *rayCluster) *corev1.Service {
	if cluster.Spec.HeadGroupSpec.HeadService != nil {
		return customHeadService(cluster)
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name:        headServiceName(cluster),
			Labels:      headLabels(cluster),
			Annotations: maps.Clone(cluster.Spec.HeadServiceAnnotations),
		},
		Spec: corev1.ServiceSpec{
			Selector: headLabels(cluster),
			Type:     cluster.Spec.HeadGroupSpec.ServiceType,
			Ports:    headServicePorts(cluster),
		},
	}
	if service.Spec.Type == "" || service.Spec.Type == corev1.ServiceTypeClusterIP {
		service.Spec.ClusterIP = corev1.ClusterIPNone
		service.Spec.PublishNotReadyAddresses = true
	}
	return service
}

// customHeadService keeps what the user wrote, but for the selector, the namespace and KubeRay's labels.
func customHeadService(cluster *rayCluster) *corev1.Service {
	written := cluster.Spec.HeadGroupSpec.HeadService
	service := &corev1.Service{ObjectMeta: *written.ObjectMeta.DeepCopy(), Spec: *written.Spec.DeepCopy()}
	service.Name = headServiceName(cluster)
	service.Labels = union(service.Labels, headLabels(cluster))
	service.Annotations = union(service.Annotations, cluster.Spec.HeadServiceAnnotations)
	service.Spec.Selector = headLabels(cluster)
	service.Spec.Ports = append(service.Spec.Ports, headServicePorts(cluster)...)
	service.Spec.Type = cmp.Or(service.Spec.Type, cluster.Spec.HeadGroupSpec.ServiceType)
	return service
}

// union is the first map with the second's entries over it.
func union(first, second map[string]string) map[string]string {
	merged := map[string]string{}
	maps.Copy(merged, first)
	maps.Copy(merged, second)
	return merged
}

func headServicePorts(cluster *rayCluster) []corev1.ServicePort {
	protocol := "tcp"
	var ports []corev1.ServicePort
	numbers := headPorts(cluster)
	for _, name := range slices.Sorted(maps.Keys(numbers)) {
		ports = append(ports, corev1.ServicePort{Name: name, Port: numbers[name], AppProtocol: &protocol})
	}
	return ports
}

// headPorts are those of the head's container. All of Ray's stand in only where it names none, the metrics port
// always: a container that lists one port has a service without a dashboard.
func headPorts(cluster *rayCluster) map[string]int32 {
	ports := map[string]int32{}
	for _, port := range cluster.Spec.HeadGroupSpec.Template.Spec.Containers[0].Ports {
		ports[cmp.Or(port.Name, strconv.Itoa(int(port.ContainerPort))+"-port")] = port.ContainerPort
	}
	if len(ports) == 0 {
		ports = map[string]int32{
			"client": portClient, "gcs-server": portGCS, "dashboard": portDashboard, "serve": portServe,
		}
	}
	if _, set := ports["metrics"]; !set {
		ports["metrics"] = portMetrics
	}
	return ports
}

// serveService sends to every pod of the cluster. It has no ports, and is then refused, where the head names none
// that begin with "serve".
func serveService(cluster *rayCluster) *corev1.Service {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: cluster.Name + "-serve-svc",
			Labels: map[string]string{
				labelOriginName: cluster.Name,
				labelOriginCRD:  "RayCluster",
				labelServe:      cluster.Name + "-serve",
			},
		},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{labelCluster: cluster.Name},
			Type:     cluster.Spec.HeadGroupSpec.ServiceType,
		},
	}
	ports := headPorts(cluster)
	for _, name := range slices.Sorted(maps.Keys(ports)) {
		if name == "serve" || strings.HasPrefix(name, "serve-") {
			service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{Name: name, Port: ports[name]})
		}
	}
	return service
}

// workersService gives the hosts of a multi-host replica names by which they find each other.
func workersService(cluster *rayCluster) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name:   cluster.Name + "-headless",
			Labels: map[string]string{labelHeadless: cluster.Name},
		},
		Spec: corev1.ServiceSpec{
			ClusterIP:                corev1.ClusterIPNone,
			Type:                     corev1.ServiceTypeClusterIP,
			PublishNotReadyAddresses: true,
			Selector:                 map[string]string{labelCluster: cluster.Name, labelNodeType: string(worker)},
		},
	}
}
