package kubelet

import (
	"context"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
)

const standardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ImageConfig says what an image is: a folder of programs on this machine, put first in PATH.
type ImageConfig struct {
	Path    string            `json:"path"`
	PullS   float64           `json:"pullS"` // what the first pull on each node takes
	Env     map[string]string `json:"env"`
	Folders []string          `json:"folders"` // what must be seen although it lies in /tmp or the like
}

// images are those that a node has pulled.
type images struct {
	kubelet *Kubelet
	pulling sync.Mutex // one at a time, as kubelets do
	mu      sync.Mutex
	pulled  map[string]bool
}

func newImages(k *Kubelet) *images {
	return &images{kubelet: k, pulled: map[string]bool{}}
}

func (i *images) find(name string) (ImageConfig, bool) {
	i.kubelet.mu.Lock()
	defer i.kubelet.mu.Unlock()
	image, known := i.kubelet.config.Images[name]
	return image, known
}

func (i *images) has(name string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.pulled[name]
}

// pull brings an image to the node, as slowly as the image says.
func (i *images) pull(ctx context.Context, w *worker, c *v1.Container) (ImageConfig, error) {
	image, known := i.find(c.Image)
	if i.has(c.Image) && c.ImagePullPolicy != v1.PullAlways {
		w.event(c, v1.EventTypeNormal, "Pulled",
			"Container image %q already present on machine and can be accessed by the pod", c.Image)
		return image, nil
	}
	if c.ImagePullPolicy == v1.PullNever {
		return image, fmt.Errorf("container image %q is not present with pull policy of Never", c.Image)
	}
	w.event(c, v1.EventTypeNormal, "Pulling", "Pulling image %q", c.Image)
	if !known {
		return image, fmt.Errorf("image %q is not in the registry: not found", c.Image)
	}
	began := time.Now()
	if !i.transfer(ctx, c.Image, image.PullS) {
		return image, ctx.Err()
	}
	w.event(c, v1.EventTypeNormal, "Pulled", "Successfully pulled image %q in %s", c.Image,
		time.Since(began).Round(time.Millisecond))
	return image, nil
}

// transfer takes its time for an image that the node does not have; false if ctx ends before.
func (i *images) transfer(ctx context.Context, name string, takesS float64) bool {
	i.pulling.Lock()
	defer i.pulling.Unlock()
	if !i.has(name) && !sleep(ctx, time.Duration(takesS*float64(time.Second))) {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pulled[name] = true
	return true
}
