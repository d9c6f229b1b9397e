package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"rayml.test/controlplane/wire"
)

// nothing is what processes read from.
var nothing = must(os.Open(os.DevNull))

func must(file *os.File, err error) *os.File {
	if err != nil {
		panic(err)
	}
	return file
}

// server is the first process of a PID namespace: it starts processes, tells of their end, and
// reaps every orphan.
type server struct {
	mu      sync.Mutex // held from a start until it is noted, so that no end comes before it
	pids    map[string]int
	waiting map[int]chan syscall.WaitStatus
	out     sync.Mutex
	prepare func(*wire.Prepare) error
	forks   chan func()
}

// serve obeys until standard input closes; by returning it ends the namespace.
func serve(prepare func(*wire.Prepare) error) error {
	s := &server{
		pids: map[string]int{}, waiting: map[int]chan syscall.WaitStatus{},
		prepare: prepare, forks: make(chan func()),
	}
	// A caller that wants the whole group to stop has other means; a terminal's Ctrl-C is not for us.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE)
	go s.reap()
	go s.read()
	for fork := range s.forks {
		fork() // on the main thread, see init
	}
	return nil
}

func (s *server) read() {
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			close(s.forks)
			return
		}
		var order wire.Order
		if err := json.Unmarshal(line, &order); err != nil {
			s.report(wire.Report{Error: err.Error()})
			continue
		}
		s.obey(order)
	}
}

func (s *server) obey(order wire.Order) {
	switch {
	case order.Start != nil:
		s.start(order.ID, order.Start)
	case order.Signal != nil:
		s.answer(order.ID, 0, s.signal(order.Signal))
	case order.Prepare != nil:
		s.answer(order.ID, 0, s.prepare(order.Prepare))
	case order.Exec != nil:
		go s.exec(order.ID, order.Exec)
	}
}

func (s *server) answer(id, pid int, err error) {
	report := wire.Report{ID: id, Pid: pid}
	if err != nil {
		report.Error = err.Error()
	}
	s.report(report)
}

func (s *server) report(report wire.Report) {
	line, err := json.Marshal(report)
	if err != nil {
		panic(err)
	}
	s.out.Lock()
	defer s.out.Unlock()
	os.Stdout.Write(append(line, '\n')) //nolint:errcheck // nobody is left to tell
}

// child is a process that was started; its end comes once.
type child struct {
	pid    int
	ended  chan syscall.WaitStatus
	logged chan struct{} // closed when all that it printed is in its log; nil if it writes there itself
}

// fork starts a process on the main thread.
func (s *server) fork(path string, argv []string, attr *os.ProcAttr) (child, error) {
	type result struct {
		child child
		err   error
	}
	done := make(chan result, 1)
	s.forks <- func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		process, err := os.StartProcess(path, argv, attr)
		if err != nil {
			done <- result{err: err}
			return
		}
		started := child{pid: process.Pid, ended: make(chan syscall.WaitStatus, 1)}
		process.Release() //nolint:errcheck // its end comes by reap
		s.waiting[started.pid] = started.ended
		done <- result{child: started}
	}
	r := <-done
	return r.child, r.err
}

// start starts a process, answers, and tells later of its end. What cannot be executed is an error.
func (s *server) start(id int, p *wire.Process) {
	started, err := s.launch(p)
	if err == nil {
		s.mu.Lock()
		s.pids[p.Name] = started.pid
		s.mu.Unlock()
	}
	s.answer(id, started.pid, err)
	if err == nil {
		go s.follow(p.Name, started)
	}
}

func (s *server) follow(name string, started child) {
	status := <-started.ended
	if started.logged != nil {
		<-started.logged
	}
	s.mu.Lock()
	delete(s.pids, name)
	s.mu.Unlock()
	s.report(wire.Report{Ended: endOf(name, status)})
}

func (s *server) launch(p *wire.Process) (child, error) {
	if pid := s.pidOf(p.Name); pid != 0 {
		return child{}, fmt.Errorf("%s runs already as process %d", p.Name, pid)
	}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return child{}, err
	}
	if p.Container != nil {
		return s.launchContainer(p, log)
	}
	defer log.Close()
	return s.fork(p.Argv[0], p.Argv, &os.ProcAttr{
		Dir: p.Dir, Env: p.Env, Files: []*os.File{nothing, log, log},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
}

func (s *server) pidOf(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pids[name]
}

func (s *server) signal(order *wire.Signal) error {
	pid := s.pidOf(order.Name)
	if pid == 0 {
		return fmt.Errorf("%s does not run", order.Name)
	}
	return syscall.Kill(pid, syscall.Signal(order.Number))
}

// reap waits for each child and each orphan.
func (s *server) reap() {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	for range children {
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
			if err == syscall.EINTR {
				continue
			}
			if pid <= 0 {
				break
			}
			s.mu.Lock()
			if ended := s.waiting[pid]; ended != nil {
				ended <- status
				delete(s.waiting, pid)
			}
			s.mu.Unlock()
		}
	}
}

func endOf(name string, status syscall.WaitStatus) *wire.Ended {
	if status.Signaled() {
		return &wire.Ended{Name: name, Code: 128 + int(status.Signal()), Signal: int(status.Signal())}
	}
	return &wire.Ended{Name: name, Code: status.ExitStatus()}
}
