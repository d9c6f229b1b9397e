package kubelet

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"rayml.test/controlplane/wire"
)

var errGone = errors.New("the pod's sandbox has ended")

// box is the running sandbox of one pod.
type box struct {
	command *exec.Cmd
	in      io.WriteCloser
	gone    chan struct{} // closed when all of the pod has ended

	mu      sync.Mutex
	next    int
	answers map[int]chan wire.Report
	ends    map[string]chan wire.Ended
}

func startBox(program string) (*box, error) {
	command := exec.Command(program, "pod")
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS |
			unix.CLONE_NEWIPC,
	}
	in, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	b := &box{
		command: command, in: in, gone: make(chan struct{}),
		answers: map[int]chan wire.Report{}, ends: map[string]chan wire.Ended{},
	}
	go b.listen(out)
	return b, nil
}

func (b *box) listen(out io.Reader) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var report wire.Report
		if json.Unmarshal(line, &report) == nil {
			b.dispatch(report)
		}
	}
	b.command.Wait() //nolint:errcheck // however it ended, it ended
	close(b.gone)
}

func (b *box) dispatch(report wire.Report) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if report.Ended != nil {
		if end := b.ends[report.Ended.Name]; end != nil {
			end <- *report.Ended
			delete(b.ends, report.Ended.Name)
		}
		return
	}
	if answer := b.answers[report.ID]; answer != nil {
		answer <- report
		delete(b.answers, report.ID)
	}
}

func (b *box) call(order wire.Order) (wire.Report, error) {
	answer := make(chan wire.Report, 1)
	b.mu.Lock()
	b.next++
	order.ID = b.next
	b.answers[order.ID] = answer
	line, err := json.Marshal(order)
	if err == nil {
		_, err = b.in.Write(append(line, '\n'))
	}
	b.mu.Unlock()
	if err != nil {
		return wire.Report{}, fmt.Errorf("%w: %w", errGone, err)
	}
	select {
	case report := <-answer:
		if report.Error != "" {
			return report, errors.New(report.Error)
		}
		return report, nil
	case <-b.gone:
		return wire.Report{}, errGone
	}
}

// start starts a container's process; its end comes through the channel, also if all of the pod ends.
func (b *box) start(process *wire.Process) (<-chan wire.Ended, error) {
	end := make(chan wire.Ended, 1)
	b.mu.Lock()
	b.ends[process.Name] = end
	b.mu.Unlock()
	if _, err := b.call(wire.Order{Start: process}); err != nil {
		return nil, err
	}
	ended := make(chan wire.Ended, 1)
	go func() {
		select {
		case report := <-end:
			ended <- report
		case <-b.gone:
			ended <- wire.Ended{Name: process.Name, Code: 137, Signal: int(syscall.SIGKILL)}
		}
	}()
	return ended, nil
}

func (b *box) signal(name string, signal syscall.Signal) error {
	_, err := b.call(wire.Order{Signal: &wire.Signal{Name: name, Number: int(signal)}})
	return err
}

// kill ends all of the pod at once and waits until it is gone.
func (b *box) kill() {
	b.command.Process.Kill() //nolint:errcheck // it has ended by itself
	<-b.gone
}
