package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"rayml.test/controlplane/wire"
)

const keptOutput = 10 << 10 // as much as a probe's message may hold

// launchContainer starts a process in a PID and a mount namespace of its own, which end with it.
func (s *server) launchContainer(p *wire.Process, log *os.File) (child, error) {
	spec, err := json.Marshal(p)
	if err != nil {
		return child{}, err
	}
	in, specWriter, err := os.Pipe()
	if err != nil {
		return child{}, err
	}
	defer in.Close()
	printer, logged, err := pumpTo(log)
	if err != nil {
		return child{}, err
	}
	defer printer.Close()
	failure, failureWriter, err := os.Pipe()
	if err != nil {
		return child{}, err
	}
	defer failure.Close()
	started, err := s.fork("/proc/self/exe", []string{"sandbox", "container"}, &os.ProcAttr{
		Files: []*os.File{nothing, printer, printer, in, failureWriter},
		Sys:   &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS},
	})
	failureWriter.Close()
	printer.Close()
	in.Close()
	started.logged = logged
	if err == nil {
		_, err = specWriter.Write(spec)
	}
	specWriter.Close()
	if err != nil {
		return child{}, err
	}
	// Executing the program closes the pipe; before that, the child writes why it cannot.
	said, err := io.ReadAll(failure)
	if err == nil && len(said) > 0 {
		err = errors.New(string(said))
	}
	return started, err
}

// pumpTo makes a pipe whose content goes into a log, and a channel that is closed when all is there.
// It is a pipe as in any cluster: who writes to /proc/1/fd/1 would write over a file from its start.
func pumpTo(log *os.File) (*os.File, chan struct{}, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	done := make(chan struct{})
	go func() {
		io.Copy(log, reader) //nolint:errcheck // a disk that is full loses lines, as a node's does
		reader.Close()
		log.Close()
		close(done)
	}()
	return writer, done, nil
}

// exec runs a program in a container and reports its code and what it printed.
func (s *server) exec(id int, order *wire.Exec) {
	report := wire.Report{ID: id}
	code, output, err := s.runInside(order)
	report.Code, report.Output = code, output
	if err != nil {
		report.Error = err.Error()
	}
	s.report(report)
}

func (s *server) runInside(order *wire.Exec) (int, string, error) {
	target := s.pidOf(order.Name)
	if target == 0 {
		return -1, "", fmt.Errorf("container %s does not run", order.Name)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return -1, "", err
	}
	defer reader.Close()
	argv := append([]string{"sandbox", "enter", strconv.Itoa(target), order.Dir}, order.Argv...)
	started, err := s.fork("/proc/self/exe", argv, &os.ProcAttr{
		Env: order.Env, Files: []*os.File{nothing, writer, writer},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	writer.Close()
	if err != nil {
		return -1, "", err
	}
	printed := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(io.LimitReader(reader, keptOutput))
		printed <- string(text)
		io.Copy(io.Discard, reader) //nolint:errcheck // so that it is never stopped by a full pipe
	}()
	select {
	case status := <-started.ended:
		return endOf("", status).Code, lastly(printed), nil
	case <-time.After(time.Duration(order.TimeoutS * float64(time.Second))):
		syscall.Kill(started.pid, syscall.SIGTERM) //nolint:errcheck // it has ended by itself
		<-started.ended
		return -1, lastly(printed), fmt.Errorf("command %q timed out after %gs", order.Argv, order.TimeoutS)
	}
}

// lastly takes what was printed; a program that left a child with the pipe is not waited for.
func lastly(printed chan string) string {
	select {
	case text := <-printed:
		return text
	case <-time.After(100 * time.Millisecond):
		return ""
	}
}

// enterContainer runs a program in the namespaces of another process: PID DIR ARGV...
func enterContainer(arguments []string) error {
	pid, dir, argv := arguments[0], arguments[1], arguments[2:]
	if err := joinNamespaces(pid); err != nil {
		return err
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	// The first process of a PID namespace cannot be left behind: this one stays and passes signals.
	process, err := os.StartProcess(path, argv, &os.ProcAttr{
		Dir: dir, Env: os.Environ(), Files: []*os.File{nothing, os.Stdout, os.Stderr},
	})
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		process.Kill() //nolint:errcheck // it has ended by itself
	}()
	state, err := process.Wait()
	if err != nil {
		return err
	}
	os.Exit(endOf("", state.Sys().(syscall.WaitStatus)).Code)
	return nil
}

func joinNamespaces(pid string) error {
	runtime.LockOSThread()
	// A thread that shares its folders with others may not change its mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	spaces := map[string]int{"pid": unix.CLONE_NEWPID, "mnt": unix.CLONE_NEWNS}
	fds := map[string]int{}
	for space := range spaces {
		fd, err := unix.Open("/proc/"+pid+"/ns/"+space, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		fds[space] = fd
	}
	for _, space := range []string{"pid", "mnt"} {
		if err := unix.Setns(fds[space], spaces[space]); err != nil {
			return fmt.Errorf("setns %s of process %s: %w", space, pid, err)
		}
	}
	return nil
}
