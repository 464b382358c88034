package client

import (
	"context"
	"net/http"
)

// PathKeys: GET FrameKeys; POST /rotate (admin) begins a rotation of the key
// that frames are sealed with.
const PathKeys = "/v1/keys"

// FrameKeys say how far a rotation of the frame key is.
type FrameKeys struct {
	FormatVersion string `json:"format_version"`
	Generation    uint32 `json:"generation"` // of the newest key; 0: the one that the cluster was made with
	Phase         string `json:"phase"`      // "": no rotation is under way; distribute; switch
}

// RotateKeys begins a rotation. Done: the new key is being handed out; Keys
// tells when it is the only one.
func (c *Client) RotateKeys(ctx context.Context, reason string) (Done, error) {
	return c.write(ctx, request{method: http.MethodPost, path: PathKeys + "/rotate", reason: reason})
}

// Keys says how far a rotation of the frame key is.
func (c *Client) Keys(ctx context.Context) (k FrameKeys, err error) {
	err = c.call(ctx, c.endpoints(), request{method: http.MethodGet, path: PathKeys}, &k)
	return k, err
}
