package api

import (
	"crypto/rand"

	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
	"github.com/clusterplan/clusterplan/runtime/member"
)

// rotateKeys makes a new frame key and has it handed out; the leader does the
// rest. The key itself is never shown.
func (s *server) rotateKeys(c *call) error {
	cmd, err := c.command("")
	if err != nil {
		return err
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails since Go 1.24
	cmd.RotateKey = &confdb.RotateKey{Key: key}
	return s.commit(c, cmd)
}

// frameKeys says how far a rotation is.
func (s *server) frameKeys(c *call) error {
	out := client.FrameKeys{FormatVersion: client.FormatVersion}
	if err := s.read(c.ctx, func(st *confdb.State, _ member.Status) {
		if k := st.Keys; k != nil {
			out.Generation, out.Phase = k.Newest(), k.Phase()
		}
	}); err != nil {
		return err
	}
	return c.answer(out)
}
