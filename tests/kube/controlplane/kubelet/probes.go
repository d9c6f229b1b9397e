package kubelet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/kubernetes/pkg/probe"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
	tcpprobe "k8s.io/kubernetes/pkg/probe/tcp"
	"rayml.test/controlplane/wire"
)

var (
	httpProber = httpprobe.New(false)
	tcpProber  = tcpprobe.New()
)

// probe runs the probes of an execution until it ends: the startup probe first, then both others.
func (c *container) probe(a *attempt) {
	if c.spec.StartupProbe != nil {
		if !c.keepAsking(a, "Startup", c.spec.StartupProbe, true) {
			return
		}
		c.set(func() {
			c.started, c.ready = true, c.spec.ReadinessProbe == nil
			c.markUp()
		})
	}
	if c.spec.LivenessProbe != nil {
		go c.keepAsking(a, "Liveness", c.spec.LivenessProbe, false)
	}
	if c.spec.ReadinessProbe != nil {
		go c.keepAsking(a, "Readiness", c.spec.ReadinessProbe, false)
	}
}

// keepAsking probes until the execution ends; once, it returns true after the first success.
func (c *container) keepAsking(a *attempt, kind string, p *v1.Probe, once bool) bool {
	if !sleep(a.done, time.Until(a.began.Add(seconds(p.InitialDelaySeconds, 0)))) {
		return false
	}
	row, lastly := 0, false
	for {
		err := c.worker.ask(a, c.spec, p)
		if a.done.Err() != nil {
			return false
		}
		if row++; (err == nil) != lastly {
			row, lastly = 1, err == nil
		}
		if err != nil {
			c.worker.event(c.spec, v1.EventTypeWarning, "Unhealthy", "%s probe failed: %v", kind, err)
		}
		if c.judge(a, kind, p, row, err == nil) && once {
			return true
		}
		if !sleep(a.done, seconds(p.PeriodSeconds, 10)) {
			return false
		}
	}
}

// judge acts on a row of equal answers; true if it is a row of successes that is long enough.
func (c *container) judge(a *attempt, kind string, p *v1.Probe, row int, good bool) bool {
	if good && row >= int(max(p.SuccessThreshold, 1)) {
		if kind == "Readiness" {
			c.setReady(a, true)
		}
		return true
	}
	if !good && row >= int(max(p.FailureThreshold, 1)) {
		if kind == "Readiness" {
			c.setReady(a, false)
			return false
		}
		select {
		case a.fail <- "failed " + map[string]string{"Startup": "startup", "Liveness": "liveness"}[kind] + " probe":
		default:
		}
	}
	return false
}

func (c *container) setReady(a *attempt, ready bool) {
	c.worker.mu.Lock()
	differs := c.attempt == a && c.ready != ready
	if differs {
		c.ready = ready
	}
	c.worker.mu.Unlock()
	if differs {
		c.worker.changed()
	}
}

func seconds(value, otherwise int32) time.Duration {
	if value == 0 {
		value = otherwise
	}
	return time.Duration(value) * time.Second
}

// ask probes once.
func (w *worker) ask(a *attempt, c *v1.Container, p *v1.Probe) error {
	timeout := seconds(p.TimeoutSeconds, 1)
	switch {
	case p.HTTPGet != nil:
		request, err := httpprobe.NewRequestForHTTPGetAction(p.HTTPGet, c, w.ip, "probe")
		if err != nil {
			return err
		}
		return verdict(httpProber.Probe(request, timeout))
	case p.TCPSocket != nil:
		port, err := portOf(p.TCPSocket.Port, c)
		if err != nil {
			return err
		}
		host := p.TCPSocket.Host
		if host == "" {
			host = w.ip
		}
		return verdict(tcpProber.Probe(host, port, timeout))
	case p.Exec != nil:
		return w.execute(a, p.Exec.Command, timeout)
	}
	return errors.New("no probe of this kind is known here")
}

func verdict(result probe.Result, said string, err error) error {
	if err != nil {
		return err
	}
	if result == probe.Failure {
		return errors.New(said)
	}
	return nil
}

func portOf(port intstr.IntOrString, c *v1.Container) (int, error) {
	if port.Type == intstr.Int {
		return port.IntValue(), nil
	}
	for _, named := range c.Ports {
		if named.Name == port.StrVal {
			return int(named.ContainerPort), nil
		}
	}
	return 0, fmt.Errorf("no port of container %s is called %q", c.Name, port.StrVal)
}

func (w *worker) execute(a *attempt, argv []string, timeout time.Duration) error {
	report, err := w.box.call(wire.Order{Exec: &wire.Exec{
		Name: a.name, Argv: argv, Env: pairs(a.env), Dir: a.dir, TimeoutS: timeout.Seconds(),
	}})
	if err != nil {
		return err
	}
	if report.Code != 0 {
		return fmt.Errorf("command exited with %d: %s", report.Code, report.Output)
	}
	return nil
}

// hook runs a lifecycle hook, for as long as ctx lasts and at most for limit.
func (w *worker) hook(ctx context.Context, a *attempt, c *v1.Container, h *v1.LifecycleHandler, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.runHook(ctx, a, c, h, limit) }()
	select {
	case err := <-done:
		return err
	case <-a.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *worker) runHook(ctx context.Context, a *attempt, c *v1.Container, h *v1.LifecycleHandler, limit time.Duration) error {
	switch {
	case h.Exec != nil:
		return w.execute(a, h.Exec.Command, limit)
	case h.Sleep != nil:
		sleep(ctx, time.Duration(h.Sleep.Seconds)*time.Second)
		return nil
	case h.HTTPGet != nil:
		request, err := httpprobe.NewRequestForHTTPGetAction(h.HTTPGet, c, w.ip, "lifecycle")
		if err != nil {
			return err
		}
		transport := &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // as kubelets do
		}
		answer, err := (&http.Client{Transport: transport}).Do(request.WithContext(ctx))
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode >= http.StatusBadRequest {
			return fmt.Errorf("%s answered %s", request.URL, answer.Status)
		}
	}
	return nil
}
