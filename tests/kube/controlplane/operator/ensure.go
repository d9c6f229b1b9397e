package operator

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
)

const tokenKey = "auth_token"

// kind is the part of a typed client that the controller uses to make objects of one kind.
type kind[T metav1.Object] interface {
	Get(ctx context.Context, name string, options metav1.GetOptions) (T, error)
	Create(ctx context.Context, object T, options metav1.CreateOptions) (T, error)
}

// ensure makes an object unless one of that name is there, and tells of it either way. Whose it is does not matter.
func ensure[T metav1.Object](
	ctx context.Context, c *controller, cluster *rayCluster, what string, client kind[T], object T,
) error {
	_, err := client.Get(ctx, object.GetName(), metav1.GetOptions{})
	if err == nil {
		return nil
	} else if !apierrors.IsNotFound(err) {
		return fmt.Errorf("look up %s %s: %w", what, object.GetName(), err)
	}
	if _, err := client.Create(ctx, object, metav1.CreateOptions{}); err != nil {
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		c.warn(cluster, "FailedToCreate"+what, "Create",
			"cannot create %s %s/%s: %v", what, cluster.Namespace, object.GetName(), err)
		return fmt.Errorf("create %s %s: %w", what, object.GetName(), err)
	}
	c.tell(cluster, "Created"+what, "Create", "created %s %s/%s", what, cluster.Namespace, object.GetName())
	return nil
}

// ensureAutoscalerAccess gives the autoscaler an account and its rights.
func (c *controller) ensureAutoscalerAccess(ctx context.Context, cluster *rayCluster) error {
	if !cluster.Spec.autoscales() {
		return nil
	}
	accounts := c.kube.CoreV1().ServiceAccounts(cluster.Namespace)
	if named := cluster.Spec.HeadGroupSpec.Template.Spec.ServiceAccountName; named != "" {
		if _, err := accounts.Get(ctx, named, metav1.GetOptions{}); err != nil {
			c.warn(cluster, "AutoscalerServiceAccountNotFound", "Validate",
				"the head names the service account %s, which nobody but its user makes: %v", named, err)
			return fmt.Errorf("look up the head's service account %s: %w", named, err)
		}
	} else if err := ensure(ctx, c, cluster, "ServiceAccount", accounts, autoscalerAccount(cluster)); err != nil {
		return err
	}
	rbac := c.kube.RbacV1()
	if err := ensure(ctx, c, cluster, "Role", rbac.Roles(cluster.Namespace), autoscalerRole(cluster)); err != nil {
		return err
	}
	bindings := rbac.RoleBindings(cluster.Namespace)
	return ensure(ctx, c, cluster, "RoleBinding", bindings, autoscalerRoleBinding(cluster))
}

// tokenSecretName is the secret that holds Ray's token: the user's, or one made under the cluster's name.
func tokenSecretName(cluster *rayCluster) string {
	if name := ptr.Deref(cluster.Spec.AuthOptions.SecretName, ""); name != "" {
		return name
	}
	return clipName(cluster.Name)
}

// ensureTokenSecret draws a token once. A secret of that name that is there already is taken as it is.
func (c *controller) ensureTokenSecret(ctx context.Context, cluster *rayCluster) error {
	auth := cluster.Spec.AuthOptions
	if auth == nil || auth.Mode == "disabled" || cluster.Spec.delegatesAuth() || ptr.Deref(auth.SecretName, "") != "" {
		return nil
	}
	name := clipName(cluster.Name)
	if _, err := c.secretLister.Secrets(cluster.Namespace).Get(name); !apierrors.IsNotFound(err) {
		return err
	}
	token := make([]byte, 32)
	if _, err := rand.Read(token); err != nil {
		return fmt.Errorf("draw a token: %w", err)
	}
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name:            name,
			Labels:          map[string]string{labelCluster: cluster.Name},
			OwnerReferences: []metav1.OwnerReference{ownedBy(cluster)},
		},
		StringData: map[string]string{tokenKey: base64.StdEncoding.EncodeToString(token)},
	}
	if _, err := c.kube.CoreV1().Secrets(cluster.Namespace).Create(ctx, secret, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create the token's secret %s: %w", name, err)
	}
	return nil
}

// headServices are found by their labels, whatever their name.
func (c *controller) headServices(cluster *rayCluster) ([]*corev1.Service, error) {
	return c.serviceLister.Services(cluster.Namespace).List(labels.SelectorFromSet(labels.Set{
		labelCluster:    cluster.Name,
		labelNodeType:   string(head),
		labelIdentifier: identifier(cluster, head),
	}))
}

// ensureHeadService never changes a service that is there: a later edit of the ports has no effect.
func (c *controller) ensureHeadService(ctx context.Context, cluster *rayCluster) error {
	services, err := c.headServices(cluster)
	if err != nil || len(services) == 1 {
		return err
	} else if len(services) > 1 {
		return fmt.Errorf("RayCluster %s has %d head services", cluster.Name, len(services))
	}
	return c.createService(ctx, cluster, headService(cluster))
}

func (c *controller) ensureWorkersService(ctx context.Context, cluster *rayCluster) error {
	spansHosts := func(group workerGroup) bool { return group.NumOfHosts > 1 }
	if !slices.ContainsFunc(cluster.Spec.WorkerGroupSpecs, spansHosts) {
		return nil
	}
	service := workersService(cluster)
	if _, err := c.serviceLister.Services(cluster.Namespace).Get(service.Name); !apierrors.IsNotFound(err) {
		return err
	}
	return c.createService(ctx, cluster, service)
}

// ensureServeService tells of nothing that it makes: so KubeRay.
func (c *controller) ensureServeService(ctx context.Context, cluster *rayCluster) error {
	if cluster.Annotations[annotationServeService] != "true" {
		return nil
	}
	service := serveService(cluster)
	if len(service.Spec.Ports) == 0 {
		return errors.New("the head's container has no port named serve, which the service for Ray Serve needs")
	}
	if _, err := c.serviceLister.Services(cluster.Namespace).Get(service.Name); !apierrors.IsNotFound(err) {
		return err
	}
	service.OwnerReferences = []metav1.OwnerReference{ownedBy(cluster)}
	_, err := c.kube.CoreV1().Services(cluster.Namespace).Create(ctx, service, metav1.CreateOptions{})
	return err
}

func (c *controller) createService(ctx context.Context, cluster *rayCluster, service *corev1.Service) error {
	service.Namespace = cluster.Namespace
	service.OwnerReferences = []metav1.OwnerReference{ownedBy(cluster)}
	if _, err := c.kube.CoreV1().Services(cluster.Namespace).Create(ctx, service, metav1.CreateOptions{}); err != nil {
		c.warn(cluster, "FailedToCreateService", "Create",
			"cannot create service %s/%s: %v", cluster.Namespace, service.Name, err)
		return fmt.Errorf("create service %s: %w", service.Name, err)
	}
	c.tell(cluster, "CreatedService", "Create", "created service %s/%s", cluster.Namespace, service.Name)
	return nil
}
