package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"k8s.io/klog/v2"
	"rayml.test/controlplane/wire"
)

// serveControl obeys the plane's owner on a socket in the plane's folder:
//
//	POST /reload                                   read kubelet.json anew
//	POST /lose?node=NAME&remove=BOOL               end a node
//	POST /signal?namespace=N&pod=P&container=C&signal=9
//	POST /exec?namespace=N&pod=P&container=C&timeout=S with the words as a JSON list
//	GET  /folder?namespace=N&pod=P&container=C     where the files of the container lie
func (k *Kubelet) serveControl(ctx context.Context) error {
	routes := http.NewServeMux()
	routes.HandleFunc("POST /reload", answer(func(r *http.Request) (any, error) {
		return nil, k.reload(r.Context())
	}))
	routes.HandleFunc("POST /lose", answer(func(r *http.Request) (any, error) {
		query := r.URL.Query()
		return nil, k.loseNode(r.Context(), query.Get("node"), query.Get("remove") == "true")
	}))
	routes.HandleFunc("POST /signal", answer(k.signalContainer))
	routes.HandleFunc("POST /exec", answer(k.execInContainer))
	routes.HandleFunc("GET /folder", answer(func(r *http.Request) (any, error) {
		w, a, err := k.running(r)
		if err != nil {
			return nil, err
		}
		return filepath.Join(w.folder, "containers", a.name), nil
	}))
	listener, err := net.Listen("unix", filepath.Join(k.settings.Folder, "kubelet.sock"))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: routes, ReadHeaderTimeout: time.Minute}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func answer(handle func(*http.Request) (any, error)) http.HandlerFunc {
	return func(out http.ResponseWriter, request *http.Request) {
		result, err := handle(request)
		if err != nil {
			http.Error(out, err.Error(), http.StatusBadRequest)
			return
		}
		if err := json.NewEncoder(out).Encode(result); err != nil {
			klog.Warning(err)
		}
	}
}

// running finds the execution of a container that a request names; the first one if it names none.
func (k *Kubelet) running(r *http.Request) (*worker, *attempt, error) {
	query := r.URL.Query()
	namespace, pod, name := query.Get("namespace"), query.Get("pod"), query.Get("container")
	w := k.worker(namespace, pod)
	if w == nil {
		return nil, nil, fmt.Errorf("no pod %s/%s runs here", namespace, pod)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range append(w.mains, w.inits...) {
		if c.attempt != nil && (name == "" || c.spec.Name == name) {
			return w, c.attempt, nil
		}
	}
	return nil, nil, fmt.Errorf("no container %q of pod %s/%s runs", name, namespace, pod)
}

func (k *Kubelet) signalContainer(r *http.Request) (any, error) {
	w, a, err := k.running(r)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(r.URL.Query().Get("signal"))
	if err != nil {
		return nil, err
	}
	return nil, w.box.signal(a.name, syscall.Signal(number))
}

func (k *Kubelet) execInContainer(r *http.Request) (any, error) {
	w, a, err := k.running(r)
	if err != nil {
		return nil, err
	}
	var argv []string
	if err := json.NewDecoder(r.Body).Decode(&argv); err != nil {
		return nil, err
	}
	timeout, err := strconv.ParseFloat(r.URL.Query().Get("timeout"), 64)
	if err != nil {
		return nil, err
	}
	return w.box.call(wire.Order{Exec: &wire.Exec{
		Name: a.name, Argv: argv, Env: pairs(a.env), Dir: a.dir, TimeoutS: timeout,
	}})
}
