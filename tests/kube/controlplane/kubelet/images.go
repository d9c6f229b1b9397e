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

// pull brings an image to the node, as slowly as the image says; one by one, as a kubelet does.
func (i *images) pull(ctx context.Context, w *worker, c *v1.Container) (ImageConfig, error) {
	image, known := i.find(c.Image)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pulled[c.Image] && c.ImagePullPolicy != v1.PullAlways {
		w.event(c, v1.EventTypeNormal, "Pulled",
			"Container image %q already present on machine and can be accessed by the pod", c.Image)
		return image, nil
	}
	if c.ImagePullPolicy == v1.PullNever {
		return image, fmt.Errorf("container image %q is not present with pull policy of Never", c.Image)
	}
	w.event(c, v1.EventTypeNormal, "Pulling", "Pulling image %q", c.Image)
	if !known {
		return image, fmt.Errorf("failed to pull and unpack image %q: failed to resolve reference %q: not found",
			c.Image, c.Image)
	}
	began := time.Now()
	if !i.pulled[c.Image] {
		select {
		case <-ctx.Done():
			return image, ctx.Err()
		case <-time.After(time.Duration(image.PullS * float64(time.Second))):
		}
	}
	i.pulled[c.Image] = true
	w.event(c, v1.EventTypeNormal, "Pulled", "Successfully pulled image %q in %s", c.Image,
		time.Since(began).Round(time.Millisecond))
	return image, nil
}
