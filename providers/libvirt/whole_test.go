package libvirt

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// TestWhole: what has another digest than it should never gets its full length, however
// it is cut into pieces, and what has the right one comes as it is.
func TestWhole(t *testing.T) {
	data := []byte("0123456789")
	sum := sha256.Sum256(data)
	for name, cut := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "halves": iotest.HalfReader, "end": iotest.DataErrReader} {
		got, err := io.ReadAll(cut(&whole{r: cut(bytes.NewReader(data)), sum: sha256.New(), digest: hex.EncodeToString(sum[:])}))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		got, err = io.ReadAll(&whole{r: cut(bytes.NewReader([]byte("012345678x"))), sum: sha256.New(), digest: hex.EncodeToString(sum[:])})
		if !errors.Is(err, errChanged) || len(got) >= len(data) {
			t.Errorf("%s that has changed: %q, %v", name, got, err)
		}
	}
}
