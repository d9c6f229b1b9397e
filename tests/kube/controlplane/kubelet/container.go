package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"rayml.test/controlplane/wire"
)

const (
	forgetAfter = 10 * time.Minute // a container that ran so long starts anew without waiting
	leastGrace  = 2 * time.Second  // what is left for SIGTERM, however long a preStop hook took
)

// container runs the container of a spec again and again, as the restart policy says.
type container struct {
	worker  *worker
	spec    *v1.Container
	init    bool
	sidecar bool
	up      chan struct{} // closed when it has started for the first time

	// Under the worker's lock.
	state    v1.ContainerState
	last     v1.ContainerState
	restarts int32
	started  bool
	ready    bool
	attempt  *attempt
}

// attempt is one execution of a container.
type attempt struct {
	name  string
	env   map[string]string
	dir   string
	group group
	ended chan struct{} // closed when it has ended
	end   wire.Ended
	began time.Time
	done  context.Context // ends the probes
	quit  context.CancelFunc
	fail  chan string // why it has to be restarted
}

func newContainer(w *worker, spec *v1.Container, before []v1.ContainerStatus, init bool) *container {
	c := &container{
		worker: w, spec: spec, init: init, up: make(chan struct{}),
		sidecar: init && spec.RestartPolicy != nil && *spec.RestartPolicy == v1.ContainerRestartPolicyAlways,
	}
	reason := "ContainerCreating"
	if init || len(w.inits) > 0 {
		reason = "PodInitializing"
	}
	c.state.Waiting = &v1.ContainerStateWaiting{Reason: reason}
	for i := range before {
		if before[i].Name == spec.Name && before[i].State.Running != nil {
			c.restarts = before[i].RestartCount + 1 // a kubelet before this one ran it
		}
	}
	return c
}

// run returns when the container is not to be started again: true if its last execution succeeded.
func (c *container) run(work context.Context) bool {
	for failures := 0; ; {
		a := c.begin(work)
		if a == nil {
			return false
		}
		c.attend(work, a)
		succeeded := a.end.Code == 0
		if work.Err() != nil || !c.restartAfter(succeeded) {
			return succeeded
		}
		if time.Since(a.began) > forgetAfter {
			failures = 0
		}
		if failures > 0 && !c.waitOut(work, a, failures-1) {
			return false
		}
		failures++
		c.worker.mu.Lock()
		c.restarts++
		c.worker.mu.Unlock()
	}
}

func (c *container) restartAfter(succeeded bool) bool {
	if c.sidecar {
		return true
	}
	switch c.worker.pod().Spec.RestartPolicy {
	case v1.RestartPolicyNever:
		return false
	case v1.RestartPolicyOnFailure:
		return !succeeded
	default:
		return !c.init || !succeeded
	}
}

// waitOut waits until the back-off after the last end is over.
func (c *container) waitOut(work context.Context, a *attempt, failures int) bool {
	backOff := c.worker.kubelet.backOff(failures)
	c.wait("CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container=%s pod=%s",
		backOff, c.spec.Name, c.worker.pod().Name))
	c.worker.event(c.spec, v1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s in pod %s",
		c.spec.Name, c.worker.pod().Name)
	return sleep(work, backOff)
}

func sleep(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}

// begin starts the container's process; nil if the pod is to stop. What cannot be executed has ended.
func (c *container) begin(work context.Context) *attempt {
	image, pulled := c.pull(work)
	if !pulled {
		return nil
	}
	told := ""
	for {
		process, a, err := c.configure(work, image)
		if work.Err() != nil {
			return nil
		}
		if err == nil {
			c.launch(process, a)
			return a
		}
		if err.Error() != told {
			told = err.Error()
			c.wait("CreateContainerConfigError", told)
			c.worker.event(c.spec, v1.EventTypeWarning, "Failed", "Error: %v", err)
		}
		if !sleep(work, retryEvery) {
			return nil
		}
	}
}

// pull gets the image, or waits for it with longer and longer pauses.
func (c *container) pull(work context.Context) (ImageConfig, bool) {
	for failures := 0; ; failures++ {
		image, err := c.worker.node.images.pull(work, c.worker, c.spec)
		if err == nil {
			return image, true
		}
		if work.Err() != nil {
			return image, false
		}
		reason := "ErrImagePull"
		if strings.Contains(err.Error(), "policy of Never") {
			reason = "ErrImageNeverPull"
		}
		c.wait(reason, err.Error())
		c.worker.event(c.spec, v1.EventTypeWarning, "Failed", "Failed to pull image %q: %v", c.spec.Image, err)
		c.worker.event(c.spec, v1.EventTypeWarning, "Failed", "Error: %s", reason)
		if !sleep(work, retryEvery) {
			return image, false
		}
		c.wait("ImagePullBackOff", fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %v", c.spec.Image, err))
		c.worker.event(c.spec, v1.EventTypeNormal, "BackOff", "Back-off pulling image %q", c.spec.Image)
		if !sleep(work, c.worker.kubelet.backOff(failures)) {
			return image, false
		}
	}
}

// configure makes all that an execution needs: variables, folders and its memory limit.
func (c *container) configure(ctx context.Context, image ImageConfig) (*wire.Process, *attempt, error) {
	w := c.worker
	a := &attempt{
		name: fmt.Sprintf("%s-%d", c.spec.Name, c.restarts), dir: c.spec.WorkingDir,
		ended: make(chan struct{}), fail: make(chan string, 1),
	}
	if a.dir == "" {
		a.dir = home
	}
	var err error
	if a.env, err = w.environment(ctx, c.spec, image); err != nil {
		return nil, nil, err
	}
	a.group, err = w.kubelet.cgroups.limit(string(w.pod().UID), a.name, c.spec.Resources.Limits.Memory().Value())
	if err != nil {
		return nil, nil, err
	}
	box, err := c.fileSystem(a, image)
	if err != nil {
		return nil, nil, err
	}
	log, err := c.logFile()
	if err != nil {
		return nil, nil, err
	}
	a.done, a.quit = context.WithCancel(w.hard)
	process := &wire.Process{
		Name: a.name, Argv: command(c.spec, a.env), Env: pairs(a.env), Dir: a.dir, Log: log, Container: box,
	}
	return process, a, nil
}

// fileSystem makes the folders that are an execution's own, and says what is mounted where.
func (c *container) fileSystem(a *attempt, image ImageConfig) (*wire.Container, error) {
	own := filepath.Join(c.worker.folder, "containers", a.name)
	for _, folder := range []string{"root", "tmp", "home"} {
		if err := os.MkdirAll(filepath.Join(own, folder), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(filepath.Join(own, "tmp"), 0o777|os.ModeSticky); err != nil {
		return nil, err
	}
	mounts, err := c.worker.mounts(c.spec, a.env, image, own)
	if err != nil {
		return nil, err
	}
	box := &wire.Container{Root: filepath.Join(own, "root"), Mounts: mounts}
	if a.group.path != "" {
		box.Cgroups = []string{a.group.path}
		box.Mounts = append(box.Mounts, wire.Mount{Source: a.group.path, Target: a.group.mount(), ReadOnly: true})
	}
	return box, nil
}

// logFile is LOGS/namespace/pod/uid/container/restarts.log, in the plane's folder.
func (c *container) logFile() (string, error) {
	pod := c.worker.pod()
	folder := filepath.Join(c.worker.kubelet.settings.Folder, "logs", pod.Namespace, pod.Name, string(pod.UID), c.spec.Name)
	path := filepath.Join(folder, fmt.Sprintf("%d.log", c.restarts))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	// Whoever asks for the log of a pod means its first container.
	return path, os.WriteFile(filepath.Join(folder, "..", "first"), []byte(c.worker.mains[0].spec.Name), 0o644)
}

func (c *container) launch(process *wire.Process, a *attempt) {
	w := c.worker
	w.event(c.spec, v1.EventTypeNormal, "Created", "Container created")
	a.began = time.Now()
	var ended <-chan wire.Ended
	err := errors.New("no command specified")
	if len(process.Argv) > 0 {
		ended, err = w.box.start(process)
	}
	if err != nil {
		w.event(c.spec, v1.EventTypeWarning, "Failed", "Error: %v", err)
		a.end = wire.Ended{Code: 128}
		c.terminated(a, "StartError", fmt.Sprintf("container %q cannot be started: %v", c.spec.Name, err))
		close(a.ended)
		return
	}
	go func() {
		a.end = <-ended
		close(a.ended)
	}()
}

// attend sees an execution through: its hooks and probes, until it has ended.
func (c *container) attend(work context.Context, a *attempt) {
	defer a.quit()
	select {
	case <-a.ended:
		if a.end.Name == "" {
			return // it was not started
		}
	default:
	}
	w := c.worker
	if hook := c.spec.Lifecycle; hook != nil && hook.PostStart != nil {
		if err := w.hook(work, a, c.spec, hook.PostStart, w.grace()); err != nil {
			w.event(c.spec, v1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: %v", err)
			a.fail <- "FailedPostStartHook"
		}
	}
	c.running(a)
	w.event(c.spec, v1.EventTypeNormal, "Started", "Container started")
	go c.probe(a)
	go a.group.endTogether(a.ended)
	select {
	case <-a.ended:
	case <-work.Done():
		w.event(c.spec, v1.EventTypeNormal, "Killing", "Stopping container %s", c.spec.Name)
		c.halt(w.hard, a)
	case why := <-a.fail:
		w.event(c.spec, v1.EventTypeNormal, "Killing", "Container %s %s, will be restarted", c.spec.Name, why)
		ctx, cancel := context.WithTimeout(w.hard, w.grace())
		c.halt(ctx, a)
		cancel()
	}
	reason := "Error"
	if a.end.Code == 0 {
		reason = "Completed"
	}
	if a.end.Signal == int(syscall.SIGKILL) && a.group.kills() > 0 {
		reason = "OOMKilled"
	}
	c.terminated(a, reason, c.lastWords(a))
}

// halt stops an execution: the preStop hook, SIGTERM, and SIGKILL when ctx ends.
func (c *container) halt(ctx context.Context, a *attempt) {
	w := c.worker
	if hook := c.spec.Lifecycle; hook != nil && hook.PreStop != nil {
		if err := w.hook(ctx, a, c.spec, hook.PreStop, w.grace()); err != nil && ctx.Err() == nil {
			w.event(c.spec, v1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: %v", err)
		}
	}
	w.box.signal(a.name, syscall.SIGTERM) //nolint:errcheck // it has ended by itself
	if hook := c.spec.Lifecycle; hook != nil && hook.PreStop != nil && ctx.Err() != nil && !w.silent.Load() {
		select { // the hook has used up the time
		case <-a.ended:
		case <-time.After(leastGrace):
		}
	}
	select {
	case <-a.ended:
	case <-ctx.Done():
		w.box.signal(a.name, syscall.SIGKILL) //nolint:errcheck // as above
		<-a.ended
	}
}

// lastWords is the end of the log, if a container that failed wants it to be its message.
func (c *container) lastWords(a *attempt) string {
	if a.end.Code == 0 || c.spec.TerminationMessagePolicy != v1.TerminationMessageFallbackToLogsOnError {
		return ""
	}
	path, err := c.logFile()
	if err != nil {
		return ""
	}
	text, _ := os.ReadFile(path)
	return string(text[max(0, len(text)-2048):])
}

func (c *container) wait(reason, message string) {
	c.set(func() {
		if c.state.Terminated != nil {
			c.last = c.state
		}
		c.state = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason, Message: message}}
	})
}

func (c *container) running(a *attempt) {
	c.set(func() {
		if c.state.Terminated != nil {
			c.last = c.state
		}
		c.state = v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: meta.NewTime(a.began)}}
		c.attempt = a
		c.started = c.spec.StartupProbe == nil
		c.ready = c.started && c.spec.ReadinessProbe == nil
		c.markUp()
	})
}

func (c *container) terminated(a *attempt, reason, message string) {
	c.set(func() {
		c.state = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
			ExitCode: int32(a.end.Code), Signal: int32(a.end.Signal), Reason: reason, Message: message,
			StartedAt: meta.NewTime(a.began), FinishedAt: meta.Now(), ContainerID: c.id(a.name),
		}}
		c.started, c.ready, c.attempt = false, false, nil
	})
}

// markUp lets what waits for a sidecar go on.
func (c *container) markUp() {
	if !c.started {
		return
	}
	select {
	case <-c.up:
	default:
		close(c.up)
	}
}

func (c *container) set(change func()) {
	c.worker.mu.Lock()
	change()
	c.worker.mu.Unlock()
	c.worker.changed()
}

func (c *container) id(name string) string {
	return fmt.Sprintf("process://%s/%s", c.worker.pod().UID, name)
}
