package operator

import (
	"context"
	"fmt"
	"maps"
	"reflect"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const annotationIngressClass = "kubernetes.io/ingress.class"

// ensureIngress leads to the dashboard and follows the spec. One of that name which is another's is left alone.
func (c *controller) ensureIngress(ctx context.Context, cluster *rayCluster) error {
	if !ptr.Deref(cluster.Spec.HeadGroupSpec.EnableIngress, false) {
		return nil
	}
	ingresses := c.kube.NetworkingV1().Ingresses(cluster.Namespace)
	desired := ingress(cluster)
	existing, err := ingresses.Get(ctx, desired.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return ensure(ctx, c, cluster, "Ingress", ingresses, desired)
	} else if err != nil {
		return fmt.Errorf("look up ingress %s: %w", desired.Name, err)
	}
	if !metav1.IsControlledBy(existing, cluster) {
		c.warn(cluster, "FailedToCreateIngress", "Create",
			"ingress %s/%s belongs to another", cluster.Namespace, desired.Name)
		return nil
	}
	if desired.Spec.IngressClassName == nil {
		desired.Spec.IngressClassName = existing.Spec.IngressClassName
	}
	if maps.Equal(existing.Labels, desired.Labels) && maps.Equal(existing.Annotations, desired.Annotations) &&
		reflect.DeepEqual(existing.Spec, desired.Spec) {
		return nil
	}
	desired.ResourceVersion = existing.ResourceVersion
	if _, err := ingresses.Update(ctx, desired, metav1.UpdateOptions{}); err != nil {
		c.warn(cluster, "FailedToUpdateIngress", "Update",
			"cannot update ingress %s/%s: %v", cluster.Namespace, desired.Name, err)
		return fmt.Errorf("update ingress %s: %w", desired.Name, err)
	}
	c.tell(cluster, "UpdatedIngress", "Update", "updated ingress %s/%s", cluster.Namespace, desired.Name)
	return nil
}

// ingress takes its class and its annotations from the cluster's annotations.
func ingress(cluster *rayCluster) *networkingv1.Ingress {
	meta := ownedMeta(cluster, cluster.Name+"-head-ingress")
	meta.Labels[labelIdentifier] = identifier(cluster, head)
	meta.Annotations = maps.Clone(cluster.Annotations)
	options := cluster.Spec.HeadGroupSpec.IngressOptions
	if options == nil {
		options = &ingressOptions{}
	}
	made := &networkingv1.Ingress{ObjectMeta: meta, Spec: networkingv1.IngressSpec{TLS: options.TLS}}
	if class, set := cluster.Annotations[annotationIngressClass]; set {
		made.Spec.IngressClassName = &class
		delete(made.Annotations, annotationIngressClass)
	}
	port, named := headPorts(cluster)["dashboard"]
	if !named {
		port = portDashboard
	}
	made.Spec.Rules = []networkingv1.IngressRule{{
		Host: ptr.Deref(options.Host, ""),
		IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
			Paths: []networkingv1.HTTPIngressPath{{
				Path:     ptr.Deref(options.Path, "/"),
				PathType: ptr.To(ptr.Deref(options.PathType, networkingv1.PathTypePrefix)),
				Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{
					Name: headServiceName(cluster),
					Port: networkingv1.ServiceBackendPort{Number: port},
				}},
			}},
		}},
	}}
	return made
}
