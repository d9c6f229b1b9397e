package kubelet

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	resources "k8s.io/kubernetes/pkg/api/v1/resource"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/pkg/kubelet/envvars"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

const home = "/home/ray"

// environment is what a container's process gets: the image's, the services', then the spec's.
func (w *worker) environment(ctx context.Context, c *v1.Container, image ImageConfig) (map[string]string, error) {
	env := map[string]string{
		"PATH": image.Path + ":" + standardPath, "HOME": home, "HOSTNAME": w.hostname(),
		// gRPC's own resolver reads no hosts file.
		"GRPC_DNS_RESOLVER": "native",
	}
	maps.Copy(env, image.Env)
	if err := w.addServices(env); err != nil {
		return nil, err
	}
	for i := range c.EnvFrom {
		if err := w.addFrom(ctx, env, &c.EnvFrom[i]); err != nil {
			return nil, err
		}
	}
	expand := expansion.MappingFuncFor(env)
	for i := range c.Env {
		value, found, err := w.valueOf(ctx, c, &c.Env[i], expand)
		if err != nil {
			return nil, err
		}
		if found {
			env[c.Env[i].Name] = value
		}
	}
	return env, nil
}

// addServices adds the address of the apiserver and, unless the pod does not want them, the
// addresses of the services of its namespace.
func (w *worker) addServices(env map[string]string) error {
	pod := w.pod()
	services := []*v1.Service{{
		ObjectMeta: meta.ObjectMeta{Name: "kubernetes"},
		Spec: v1.ServiceSpec{
			ClusterIP: w.kubelet.address, // nobody stands for cluster addresses here
			Ports:     []v1.ServicePort{{Name: "https", Port: 443, Protocol: v1.ProtocolTCP}},
		},
	}}
	if pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks {
		found, err := w.kubelet.services.Services(pod.Namespace).List(labels.Everything())
		if err != nil {
			return err
		}
		services = append(found, services...)
	}
	for _, variable := range envvars.FromServices(services) {
		env[variable.Name] = variable.Value
	}
	return nil
}

func (w *worker) addFrom(ctx context.Context, env map[string]string, from *v1.EnvFromSource) error {
	var data map[string]string
	var err error
	switch {
	case from.ConfigMapRef != nil:
		data, err = w.configMap(ctx, from.ConfigMapRef.Name, from.ConfigMapRef.Optional)
	case from.SecretRef != nil:
		data, err = w.secret(ctx, from.SecretRef.Name, from.SecretRef.Optional)
	}
	for key, value := range data {
		env[from.Prefix+key] = value
	}
	return err
}

// valueOf computes one variable; it is not found if it refers to an optional thing that is not there.
func (w *worker) valueOf(
	ctx context.Context, c *v1.Container, variable *v1.EnvVar, expand func(string) string,
) (string, bool, error) {
	from := variable.ValueFrom
	switch {
	case from == nil:
		return expansion.Expand(variable.Value, expand), true, nil
	case from.FieldRef != nil:
		value, err := w.field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err := w.resource(from.ResourceFieldRef, c)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		data, err := w.configMap(ctx, ref.Name, ref.Optional)
		return pick(data, err, "configmap", ref.Name, ref.Key, ref.Optional)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		data, err := w.secret(ctx, ref.Name, ref.Optional)
		return pick(data, err, "secret", ref.Name, ref.Key, ref.Optional)
	}
	return "", false, fmt.Errorf("variable %s has no source that is known here", variable.Name)
}

func pick(data map[string]string, err error, kind, name, key string, optional *bool) (string, bool, error) {
	if err != nil {
		return "", false, err
	}
	value, found := data[key]
	if !found && (optional == nil || !*optional) {
		return "", false, fmt.Errorf("couldn't find key %s in %s %s", key, kind, name)
	}
	return value, found, nil
}

// field is a field of the pod as it is now; its addresses are ours to tell.
func (w *worker) field(path string) (string, error) {
	pod := w.pod()
	switch path {
	case "status.podIP", "status.podIPs":
		return w.ip, nil
	case "status.hostIP", "status.hostIPs":
		return w.kubelet.address, nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	}
	return fieldpath.ExtractFieldPathAsString(pod, path)
}

// resource is a request or limit of a container; a limit that is not set is what the node has.
func (w *worker) resource(ref *v1.ResourceFieldSelector, c *v1.Container) (string, error) {
	pod := w.pod().DeepCopy()
	object, err := nodeObject(w.node.name, w.node.config, w.kubelet.address)
	if err != nil {
		return "", err
	}
	name := ref.ContainerName
	if name == "" {
		name = c.Name
	}
	return resources.ExtractResourceValueByContainerNameAndNodeAllocatable(ref, pod, name, object.Status.Allocatable)
}

func (w *worker) configMap(ctx context.Context, name string, optional *bool) (map[string]string, error) {
	found, err := w.kubelet.client.CoreV1().ConfigMaps(w.pod().Namespace).Get(ctx, name, meta.GetOptions{})
	if err != nil {
		return nil, unlessOptional(err, "configmap", name, optional)
	}
	data := map[string]string{}
	maps.Copy(data, found.Data)
	for key, value := range found.BinaryData {
		data[key] = string(value)
	}
	return data, nil
}

func (w *worker) secret(ctx context.Context, name string, optional *bool) (map[string]string, error) {
	found, err := w.kubelet.client.CoreV1().Secrets(w.pod().Namespace).Get(ctx, name, meta.GetOptions{})
	if err != nil {
		return nil, unlessOptional(err, "secret", name, optional)
	}
	data := map[string]string{}
	for key, value := range found.Data {
		data[key] = string(value)
	}
	return data, nil
}

func unlessOptional(err error, kind, name string, optional *bool) error {
	if !errors.IsNotFound(err) {
		return err
	}
	if optional != nil && *optional {
		return nil
	}
	return fmt.Errorf("%s %q not found", kind, name)
}

// command is what the container runs; without one, an image of ours has nothing to run.
func command(c *v1.Container, env map[string]string) []string {
	expand := expansion.MappingFuncFor(env)
	words := make([]string, 0, len(c.Command)+len(c.Args))
	for _, word := range append(slices.Clone(c.Command), c.Args...) {
		words = append(words, expansion.Expand(word, expand))
	}
	return words
}

func pairs(env map[string]string) []string {
	list := make([]string, 0, len(env))
	for name, value := range env {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

func (w *worker) hostname() string {
	pod := w.pod()
	name := pod.Spec.Hostname
	if name == "" {
		name = pod.Name
	}
	return strings.TrimRight(name[:min(len(name), 63)], "-.")
}
