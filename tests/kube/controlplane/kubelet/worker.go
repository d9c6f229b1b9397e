package kubelet

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"rayml.test/controlplane/wire"
)

const (
	retryEvery   = time.Second
	defaultGrace = 30 * time.Second
)

// worker runs one pod from its binding to its removal.
type worker struct {
	kubelet *Kubelet
	node    *node
	folder  string
	latest  atomic.Pointer[v1.Pod]
	began   meta.Time

	work   context.Context // ends when the pod is to stop
	stop   context.CancelFunc
	hard   context.Context // ends when its time to stop is over
	cut    context.CancelFunc
	silent atomic.Bool // nothing is reported any more
	dirty  chan struct{}

	mu          sync.Mutex
	box         *box
	boxHeld     bool
	host        int
	ip          string
	initialized bool
	inits       []*container
	mains       []*container
	conditions  map[v1.PodConditionType]v1.PodCondition
	final       bool   // all has ended for good
	failed      string // the reason for which the pod fails whatever its containers say
	message     string
	stopping    bool
	given       time.Duration // the grace
}

func newWorker(k *Kubelet, n *node, pod *v1.Pod) *worker {
	w := &worker{
		kubelet: k, node: n, folder: filepath.Join(k.settings.Folder, "pods", string(pod.UID)),
		began: meta.Now(), dirty: make(chan struct{}, 1),
		conditions: map[v1.PodConditionType]v1.PodCondition{},
	}
	w.latest.Store(pod)
	w.hard, w.cut = context.WithCancel(context.Background())
	w.work, w.stop = context.WithCancel(w.hard)
	for i := range pod.Spec.InitContainers {
		w.inits = append(w.inits, newContainer(w, &pod.Spec.InitContainers[i], pod.Status.InitContainerStatuses, true))
	}
	for i := range pod.Spec.Containers {
		w.mains = append(w.mains, newContainer(w, &pod.Spec.Containers[i], pod.Status.ContainerStatuses, false))
	}
	return w
}

func (w *worker) pod() *v1.Pod {
	return w.latest.Load()
}

// update takes the pod's newer state; a deletion stops it, within the grace that is left.
func (w *worker) update(pod *v1.Pod) {
	w.latest.Store(pod)
	if pod.DeletionTimestamp == nil {
		return
	}
	grace := defaultGrace
	if seconds := pod.DeletionGracePeriodSeconds; seconds != nil {
		grace = time.Duration(*seconds) * time.Second
	}
	w.stopWithin(grace)
}

// stopWithin asks the containers to stop; whatever runs at the end of the grace is killed. Only a
// shorter grace changes one that runs.
func (w *worker) stopWithin(grace time.Duration) {
	w.mu.Lock()
	if !w.stopping || grace < w.given {
		w.stopping, w.given = true, grace
		time.AfterFunc(grace, w.cut)
	}
	w.mu.Unlock()
	w.stop()
}

// abandon ends the pod at once and tells nobody: it is deleted already, or its node is lost.
func (w *worker) abandon() {
	w.silent.Store(true)
	w.cut()
	w.mu.Lock()
	box := w.box
	w.mu.Unlock()
	if box != nil {
		box.command.Process.Kill() //nolint:errcheck // it has ended by itself
	}
}

func (w *worker) event(c *v1.Container, kind, reason, format string, values ...any) {
	if w.silent.Load() {
		return
	}
	pod := w.pod()
	reference := &v1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
	}
	if c != nil {
		reference.FieldPath = fmt.Sprintf("spec.containers{%s}", c.Name)
	}
	w.node.events.Eventf(reference, kind, reason, format, values...)
}

func (w *worker) run() {
	posted := make(chan struct{})
	ended := make(chan struct{})
	go w.post(ended, posted)
	if w.prepare() {
		w.live()
	}
	w.cleanUp()
	close(ended)
	<-posted
	w.bury()
}

// prepare makes volumes and sandbox, again and again until it can; false if the pod is to stop.
func (w *worker) prepare() bool {
	w.changed()
	told := ""
	for {
		err := w.tryPrepare()
		if err == nil {
			return true
		}
		if w.work.Err() == nil && err.Error() != told {
			told = err.Error()
			w.event(nil, v1.EventTypeWarning, "FailedMount", "%v", err)
		}
		select {
		case <-w.work.Done():
			return false
		case <-time.After(retryEvery):
		}
	}
}

func (w *worker) tryPrepare() error {
	memory, err := w.fillVolumes(w.work)
	if err != nil {
		return err
	}
	host, err := w.kubelet.network.take()
	if err != nil {
		return err
	}
	ip := w.kubelet.network.ip(host)
	if err := w.writeHosts(ip.String()); err != nil {
		return err
	}
	box, err := startBox(w.kubelet.settings.Sandbox)
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.box, w.boxHeld, w.host, w.ip = box, true, host, ip.String()
	w.mu.Unlock()
	if err := w.furnish(box, host, memory); err != nil {
		w.dropBox()
		return err
	}
	w.setCondition(v1.PodReadyToStartContainers, true, "", "")
	return nil
}

func (w *worker) furnish(box *box, host int, memory []wire.Memory) error {
	if w.silent.Load() {
		return errGone
	}
	if err := w.kubelet.network.connect(host, box.command.Process.Pid); err != nil {
		return err
	}
	mask := net.IPNet{IP: w.kubelet.network.ip(host), Mask: net.CIDRMask(w.kubelet.network.prefix, 32)}
	_, err := box.call(wire.Order{Prepare: &wire.Prepare{
		Hostname: w.hostname(), Address: mask.String(), Gateway: w.kubelet.address, Memory: memory,
	}})
	return err
}

func (w *worker) dropBox() {
	w.mu.Lock()
	box, host, held := w.box, w.host, w.boxHeld
	w.boxHeld = false
	w.mu.Unlock()
	if !held {
		return
	}
	box.kill()
	w.kubelet.network.disconnect(host)
	w.kubelet.network.release(host)
}

// live runs the containers until they have ended or the pod has been stopped.
func (w *worker) live() {
	if seconds := w.pod().Spec.ActiveDeadlineSeconds; seconds != nil {
		timer := time.AfterFunc(time.Duration(*seconds)*time.Second, w.exceed)
		defer timer.Stop()
	}
	var sidecars sync.WaitGroup
	sidecarsWork, stopSidecars := context.WithCancel(w.hard)
	defer stopSidecars()
	if w.initialize(sidecarsWork, &sidecars) {
		w.set(func() { w.initialized = true })
		var mains sync.WaitGroup
		for _, c := range w.mains {
			mains.Go(func() { c.run(w.work) })
		}
		mains.Wait()
	}
	stopSidecars()
	sidecars.Wait()
}

// initialize runs the init containers one after another; those that stay run on beside the rest.
func (w *worker) initialize(sidecarsWork context.Context, sidecars *sync.WaitGroup) bool {
	for _, c := range w.inits {
		if !c.sidecar {
			if !c.run(w.work) {
				return false
			}
			continue
		}
		sidecars.Go(func() { c.run(sidecarsWork) })
		select {
		case <-c.up:
		case <-w.work.Done():
			return false
		}
	}
	return w.work.Err() == nil
}

func (w *worker) exceed() {
	w.mu.Lock()
	w.failed, w.message = "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
	w.mu.Unlock()
	w.stopWithin(w.grace())
}

func (w *worker) grace() time.Duration {
	if seconds := w.pod().Spec.TerminationGracePeriodSeconds; seconds != nil {
		return time.Duration(*seconds) * time.Second
	}
	return defaultGrace
}

// cleanUp takes away all of the pod but its logs.
func (w *worker) cleanUp() {
	w.stop()
	w.dropBox()
	w.kubelet.cgroups.removePod(string(w.pod().UID))
	if err := os.RemoveAll(w.folder); err != nil {
		klog.Warningf("files of pod %s: %v", w.pod().Name, err)
	}
	w.cut()
	w.mu.Lock()
	w.final = true
	w.mu.Unlock()
	w.setCondition(v1.PodReadyToStartContainers, false, "", "")
}

// bury waits until the pod that has ended is deleted, and then lets go of it.
func (w *worker) bury() {
	defer w.kubelet.forget(w.pod().UID)
	if w.silent.Load() || w.pod().DeletionTimestamp == nil {
		return // one that is deleted later has no worker any more, see podChanged
	}
	w.kubelet.remove(w.pod())
}

// remove deletes a pod's object for good; it tries until it is gone.
func (k *Kubelet) remove(pod *v1.Pod) {
	now := int64(0)
	for {
		err := k.client.CoreV1().Pods(pod.Namespace).Delete(context.Background(), pod.Name, meta.DeleteOptions{
			GracePeriodSeconds: &now, Preconditions: &meta.Preconditions{UID: &pod.UID},
		})
		if err == nil || errors.IsNotFound(err) || errors.IsConflict(err) {
			return
		}
		time.Sleep(retryEvery)
	}
}
