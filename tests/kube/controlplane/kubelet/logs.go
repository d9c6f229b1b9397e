package kubelet

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"k8s.io/klog/v2"
)

const followEvery = 100 * time.Millisecond

// serveLogs answers the apiserver's requests for the logs of containers, which it sends to nodes.
func (k *Kubelet) serveLogs() {
	routes := http.NewServeMux()
	routes.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", k.sendLog)
	server := &http.Server{
		Addr: fmt.Sprintf("%s:%d", k.address, logsPort), Handler: routes, ReadHeaderTimeout: time.Minute,
	}
	pki := filepath.Join(k.settings.Folder, "pki")
	err := server.ListenAndServeTLS(filepath.Join(pki, "apiserver.crt"), filepath.Join(pki, "apiserver.key"))
	klog.Errorf("logs are not served: %v", err)
}

func (k *Kubelet) sendLog(out http.ResponseWriter, r *http.Request) {
	path, err := k.logOf(r)
	if err != nil {
		http.Error(out, err.Error(), http.StatusNotFound)
		return
	}
	file, err := os.Open(path)
	if err != nil {
		http.Error(out, err.Error(), http.StatusNotFound)
		return
	}
	defer file.Close()
	if lines, err := strconv.Atoi(r.URL.Query().Get("tailLines")); err == nil {
		if err := seekTail(file, lines); err != nil {
			http.Error(out, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	io.Copy(out, file) //nolint:errcheck // the reader may leave
	for r.URL.Query().Get("follow") == "true" {
		out.(http.Flusher).Flush()
		running := k.worker(r.PathValue("namespace"), r.PathValue("pod")) != nil
		select {
		case <-r.Context().Done():
			return
		case <-time.After(followEvery):
		}
		if copied, err := io.Copy(out, file); err != nil || copied == 0 && !running {
			return
		}
	}
}

// logOf finds the log of the newest execution of a container, or of the one before.
func (k *Kubelet) logOf(r *http.Request) (string, error) {
	folder := filepath.Join(k.settings.Folder, "logs", r.PathValue("namespace"), r.PathValue("pod"))
	if w := k.worker(r.PathValue("namespace"), r.PathValue("pod")); w != nil {
		folder = filepath.Join(folder, string(w.pod().UID))
	} else {
		folder = filepath.Join(folder, "*")
	}
	found, err := filepath.Glob(filepath.Join(folder, r.PathValue("container"), "*.log"))
	if err != nil {
		return "", err
	}
	age := 1
	if r.URL.Query().Get("previous") == "true" {
		age = 2
	}
	if len(found) < age {
		return "", fmt.Errorf("container %q has no such log", r.PathValue("container"))
	}
	newest := found[:0:0]
	for range age {
		newest = append(newest, takeNewest(&found))
	}
	return newest[age-1], nil
}

func takeNewest(paths *[]string) string {
	best, at := time.Time{}, 0
	for i, path := range *paths {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(best) {
			best, at = info.ModTime(), i
		}
	}
	path := (*paths)[at]
	*paths = append((*paths)[:at], (*paths)[at+1:]...)
	return path
}

// seekTail moves to where the last lines begin.
func seekTail(file *os.File, lines int) error {
	text, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	at := len(text)
	for ; at > 0; at-- {
		if text[at-1] == '\n' && at < len(text) {
			if lines--; lines <= 0 {
				break
			}
		}
	}
	_, err = file.Seek(int64(at), io.SeekStart)
	return err
}
