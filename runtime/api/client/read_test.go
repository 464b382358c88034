package client

import (
	"bytes"
	"testing"
)

// An answer is read whole, whatever length it was said to have.
func TestReadAll(t *testing.T) {
	text := bytes.Repeat([]byte("answer "), 1000)
	for _, size := range []int64{-1, 0, 1, 7000, 7001, 1 << 40} {
		got, err := readAll(bytes.NewReader(text), size)
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%d: %d bytes, %v", size, len(got), err)
		}
	}
	if got, _ := readAll(bytes.NewReader(text), 7000); cap(got) > 8000 {
		t.Errorf("%d bytes for 7000", cap(got))
	}
}
