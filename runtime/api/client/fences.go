package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"time"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// PathFences: PUT /{id} spec.Fence, DELETE /{id} (admin). A node is fenced by
// POST PathNodes/{id}/fence (operator) with Order.
const PathFences = "/v1/fences"

// ConfigFence is a fence as the planner reads it. Parameters that are never
// shown are spec.Hidden; for admins they are SealParameter's, which is enough to
// see a change.
type ConfigFence struct {
	Spec spec.Fence `json:"spec"`
	Last *FenceUse  `json:"last,omitempty"`
}

// FenceUse is the last use of a fence.
type FenceUse struct {
	Node  string    `json:"node"` // name
	OK    bool      `json:"ok"`   // the device said that the node is off
	Error string    `json:"error,omitempty"`
	Time  time.Time `json:"time"`
}

// StatusFence is one fence in `status`.
type StatusFence struct {
	Name  string    `json:"name"`
	Agent string    `json:"agent"`
	Nodes []string  `json:"nodes"` // names that it covers
	Level int       `json:"level"`
	Last  *FenceUse `json:"last"` // null: never used
}

// StatusFenced says that a node was off.
type StatusFenced struct {
	By     string    `json:"by"`     // devices, or who said so
	Person bool      `json:"person"` // by a person's word
	Time   time.Time `json:"time"`
}

// SealParameter stands for the value of a parameter that is not shown.
func SealParameter(fence, name, value string) string {
	sum := sha256.Sum256([]byte(fence + "\x00" + name + "\x00" + value))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// PutFence makes a fence (by its id) or changes it.
func (c *Client) PutFence(ctx context.Context, f spec.Fence, ifMatch uint64) (Done, error) {
	return c.write(ctx, request{method: http.MethodPut, path: PathFences + "/" + url.PathEscape(f.ID), body: f, ifMatch: ifMatch})
}

// DeleteFence forgets a fence. Deleting what is not there is Done.
func (c *Client) DeleteFence(ctx context.Context, id string, ifMatch uint64) (Done, error) {
	return c.write(ctx, request{method: http.MethodDelete, path: PathFences + "/" + url.PathEscape(id), ifMatch: ifMatch})
}

// Fence has the leader turn a node (id or name) off, or, with
// Order.ConfirmedOff, takes the caller's word that it is. Done: the order is
// committed; an event node_fenced or fence_failed follows.
func (c *Client) Fence(ctx context.Context, node string, o Order) (Done, error) {
	return c.order(ctx, PathNodes, node, "fence", o)
}
