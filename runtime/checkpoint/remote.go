package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// Remote is the Store that an agent is, by its API on a Unix socket.
type Remote struct {
	path  string // of the resource's checkpoint
	epoch uint64
	http  *http.Client
}

// NewRemote speaks for a resource (the group's id, for its name may change
// meanwhile, and the resource's name) under an epoch. Close ends its
// connections.
func NewRemote(socket, group, resource string, epoch uint64) *Remote {
	return &Remote{
		path:  client.PathCheckpoints + "/" + url.PathEscape(group) + "/" + url.PathEscape(resource),
		epoch: epoch,
		http: &http.Client{Transport: &http.Transport{
			// No connection stays: between two looks there are seconds.
			DisableKeepAlives: true,
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return client.DialSocket(ctx, socket) },
		}},
	}
}

// ask makes one call and reads the answer, which is at most max bytes.
func (r *Remote) ask(ctx context.Context, method, path, kind string, body []byte, max int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://node"+r.path+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set(client.HeaderEpoch, strconv.FormatUint(r.epoch, 10))
	res, err := r.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, max))
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	if res.StatusCode < 400 {
		return data, nil
	}
	e := &client.Error{}
	if json.Unmarshal(data, e) != nil || e.Message == "" {
		return nil, fmt.Errorf("the agent answered %s", res.Status)
	}
	return nil, e
}

const (
	plainJSON = "application/json"
	plainData = "application/octet-stream"
	maxAnswer = 4 << 20
)

// Load is Store's.
func (r *Remote) Load(ctx context.Context) (m Manifest, err error) {
	data, err := r.ask(ctx, http.MethodGet, "", plainJSON, nil, maxAnswer)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("read the agent's answer: %w", err)
	}
	return m, nil
}

// Chunk is Store's.
func (r *Remote) Chunk(ctx context.Context, hash string) ([]byte, error) {
	return r.ask(ctx, http.MethodGet, "/chunks/"+url.PathEscape(hash), plainData, nil, maxAnswer)
}

// PutChunk is Store's.
func (r *Remote) PutChunk(ctx context.Context, data []byte) error {
	_, err := r.ask(ctx, http.MethodPost, "/chunks", plainData, data, maxAnswer)
	return err
}

// Put is Store's.
func (r *Remote) Put(ctx context.Context, files []File) error {
	body, err := json.Marshal(client.CheckpointFiles{Files: wire(files)})
	if err != nil {
		return err
	}
	_, err = r.ask(ctx, http.MethodPut, "", plainJSON, body, maxAnswer)
	return err
}

// Problem is Store's.
func (r *Remote) Problem(ctx context.Context, text string) error {
	body, err := json.Marshal(client.CheckpointProblem{Text: text})
	if err != nil {
		return err
	}
	_, err = r.ask(ctx, http.MethodPost, "/problem", plainJSON, body, maxAnswer)
	return err
}

func wire(files []File) []client.CheckpointFile {
	out := make([]client.CheckpointFile, len(files))
	for i, f := range files {
		out[i] = client.CheckpointFile(f)
	}
	return out
}
