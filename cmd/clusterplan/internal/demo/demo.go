// Package demo has two small programs to try a cluster with: one that serves,
// one that uses what is served. They stand in the quickstart's groups.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// Web answers every request with the name of the node that it runs on (and, as
// a header, the epoch of its ownership), until ctx ends; then at once no more.
func Web(ctx context.Context, listen string, out io.Writer) error {
	node := os.Getenv("CLUSTERPLAN_NODE")
	if node == "" {
		node, _ = os.Hostname()
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("demo web: %w; choose another --listen HOST:PORT", err)
	}
	fmt.Fprintf(out, "%s node %s answers at http://%s/\n", time.Now().UTC().Format(time.RFC3339), node, listen)
	srv := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			if epoch := os.Getenv("CLUSTERPLAN_EPOCH"); epoch != "" {
				w.Header().Set("Clusterplan-Epoch", epoch)
			}
			io.WriteString(w, node+"\n")
		}),
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("demo web: %w", err)
	}
	return nil
}

// Worker asks url once a second until ctx ends. It says when what it hears
// changes, and is quiet otherwise. Without a url it has nobody to ask, and waits.
func Worker(ctx context.Context, url string, out io.Writer) error {
	if url == "" {
		fmt.Fprintf(out, "%s the environment variable URL is not set: nobody to ask, waiting\n", time.Now().UTC().Format(time.RFC3339))
		<-ctx.Done()
		return nil
	}
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := ""
	for {
		heard := ask(ctx, client, url)
		if ctx.Err() != nil {
			return nil
		}
		if heard != last {
			fmt.Fprintf(out, "%s %s\n", time.Now().UTC().Format(time.RFC3339), heard)
			last = heard
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func ask(ctx context.Context, client *http.Client, url string) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err.Error()
	}
	resp, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 200))
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s: %q", resp.Status, body)
}
