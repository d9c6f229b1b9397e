package kubelet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	auth "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
	"rayml.test/controlplane/wire"
)

// fillVolumes fills the folder of each volume; those in memory are told to the sandbox.
func (w *worker) fillVolumes(ctx context.Context) ([]wire.Memory, error) {
	memory := []wire.Memory{}
	pod := w.pod()
	for i := range pod.Spec.Volumes {
		volume := &pod.Spec.Volumes[i]
		path := w.volume(volume)
		if volume.HostPath == nil {
			if err := os.MkdirAll(path, 0o777); err != nil {
				return nil, err
			}
		}
		if empty := volume.EmptyDir; empty != nil && empty.Medium == v1.StorageMediumMemory {
			memory = append(memory, wire.Memory{Path: path, SizeBytes: w.memorySize(empty)})
			continue
		}
		if err := w.fillVolume(ctx, volume, path); err != nil {
			return nil, fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", volume.Name, err)
		}
	}
	return memory, nil
}

// memorySize is the smaller of the volume's limit and the limits of the pod's containers together.
func (w *worker) memorySize(empty *v1.EmptyDirVolumeSource) int64 {
	size, complete := int64(0), true
	for i := range w.pod().Spec.Containers {
		limit := w.pod().Spec.Containers[i].Resources.Limits.Memory().Value()
		size, complete = size+limit, complete && limit > 0
	}
	if !complete {
		size = 0
	}
	if limit := empty.SizeLimit; limit != nil && limit.Value() > 0 && (size == 0 || limit.Value() < size) {
		return limit.Value()
	}
	return size
}

func (w *worker) volume(volume *v1.Volume) string {
	if volume.HostPath != nil {
		return volume.HostPath.Path
	}
	return filepath.Join(w.folder, "volumes", volume.Name)
}

func (w *worker) fillVolume(ctx context.Context, volume *v1.Volume, path string) error {
	switch {
	case volume.EmptyDir != nil:
		return os.Chmod(path, 0o777)
	case volume.HostPath != nil:
		if kind := volume.HostPath.Type; kind != nil && *kind == v1.HostPathDirectoryOrCreate {
			return os.MkdirAll(path, 0o755)
		}
		_, err := os.Stat(path)
		return err
	case volume.Secret != nil:
		data, err := w.secret(ctx, volume.Secret.SecretName, volume.Secret.Optional)
		return firstError(err, func() error { return writeItems(path, data, volume.Secret.Items) })
	case volume.ConfigMap != nil:
		data, err := w.configMap(ctx, volume.ConfigMap.Name, volume.ConfigMap.Optional)
		return firstError(err, func() error { return writeItems(path, data, volume.ConfigMap.Items) })
	case volume.DownwardAPI != nil:
		return w.writeFields(path, volume.DownwardAPI.Items)
	case volume.Projected != nil:
		return w.project(ctx, path, volume.Projected)
	}
	return fmt.Errorf("no plugin of this kubelet matches the volume")
}

func firstError(err error, then func() error) error {
	if err != nil {
		return err
	}
	return then()
}

func (w *worker) project(ctx context.Context, path string, projected *v1.ProjectedVolumeSource) error {
	for i := range projected.Sources {
		source := &projected.Sources[i]
		var err error
		var data map[string]string
		switch {
		case source.ServiceAccountToken != nil:
			err = w.writeToken(ctx, path, source.ServiceAccountToken)
		case source.ConfigMap != nil:
			data, err = w.configMap(ctx, source.ConfigMap.Name, source.ConfigMap.Optional)
			err = firstError(err, func() error { return writeItems(path, data, source.ConfigMap.Items) })
		case source.Secret != nil:
			data, err = w.secret(ctx, source.Secret.Name, source.Secret.Optional)
			err = firstError(err, func() error { return writeItems(path, data, source.Secret.Items) })
		case source.DownwardAPI != nil:
			err = w.writeFields(path, source.DownwardAPI.Items)
		default:
			err = fmt.Errorf("no plugin of this kubelet matches a source of the projected volume")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) writeToken(ctx context.Context, path string, want *v1.ServiceAccountTokenProjection) error {
	pod := w.pod()
	request := &auth.TokenRequest{Spec: auth.TokenRequestSpec{
		ExpirationSeconds: want.ExpirationSeconds,
		BoundObjectRef: &auth.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID,
		},
	}}
	if want.Audience != "" {
		request.Spec.Audiences = []string{want.Audience}
	}
	accounts := w.kubelet.client.CoreV1().ServiceAccounts(pod.Namespace)
	answer, err := accounts.CreateToken(ctx, pod.Spec.ServiceAccountName, request, meta.CreateOptions{})
	if err != nil {
		return err
	}
	return writeFile(path, want.Path, answer.Status.Token)
}

func (w *worker) writeFields(path string, items []v1.DownwardAPIVolumeFile) error {
	for i := range items {
		var value string
		var err error
		if ref := items[i].ResourceFieldRef; ref != nil {
			value, err = w.resource(ref, &w.pod().Spec.Containers[0])
		} else {
			value, err = w.field(items[i].FieldRef.FieldPath)
		}
		if err == nil {
			err = writeFile(path, items[i].Path, value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeItems writes the keys that are asked for, or all.
func writeItems(path string, data map[string]string, items []v1.KeyToPath) error {
	for key, value := range data {
		at := slices.IndexFunc(items, func(item v1.KeyToPath) bool { return item.Key == key })
		if len(items) > 0 && at < 0 {
			continue
		}
		name := key
		if at >= 0 {
			name = items[at].Path
		}
		if err := writeFile(path, name, value); err != nil {
			return err
		}
	}
	for _, item := range items {
		if _, found := data[item.Key]; !found && data != nil {
			return fmt.Errorf("references non-existent key: %s", item.Key)
		}
	}
	return nil
}

func writeFile(folder, name, text string) error {
	path := filepath.Join(folder, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// mounts says where a container finds its volumes, its hosts file and its own folders.
func (w *worker) mounts(c *v1.Container, env map[string]string, image ImageConfig, own string) ([]wire.Mount, error) {
	pod := w.pod()
	mounts := []wire.Mount{
		{Source: filepath.Join(own, "tmp"), Target: "/tmp"},
		{Source: filepath.Join(own, "tmp"), Target: "/var/tmp"},
		{Source: filepath.Join(own, "home"), Target: home},
		{Source: "/dev/shm", Target: "/dev/shm"},
		{Source: filepath.Join(w.folder, "hosts"), Target: "/etc/hosts", ReadOnly: true},
		// Nobody answers for names that the hosts file lacks, so that they fail at once.
		{Source: "/dev/null", Target: "/etc/resolv.conf", ReadOnly: true},
	}
	for _, folder := range image.Folders {
		mounts = append(mounts, wire.Mount{Source: folder, Target: folder, ReadOnly: true})
	}
	for _, mount := range c.VolumeMounts {
		at := slices.IndexFunc(pod.Spec.Volumes, func(v v1.Volume) bool { return v.Name == mount.Name })
		if at < 0 {
			return nil, fmt.Errorf("no volume is called %q", mount.Name)
		}
		part := mount.SubPath
		if mount.SubPathExpr != "" {
			part = expansion.Expand(mount.SubPathExpr, expansion.MappingFuncFor(env))
		}
		source := filepath.Join(w.volume(&pod.Spec.Volumes[at]), part)
		if part != "" && pod.Spec.Volumes[at].EmptyDir != nil {
			if err := os.MkdirAll(source, 0o777); err != nil {
				return nil, err
			}
		}
		mounts = append(mounts, wire.Mount{Source: source, Target: mount.MountPath, ReadOnly: mount.ReadOnly})
	}
	return mounts, nil
}
