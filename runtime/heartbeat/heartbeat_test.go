package heartbeat

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var testKey = bytes.Repeat([]byte{7}, 32)

func frames() *rapid.Generator[Frame] {
	return rapid.Custom(func(t *rapid.T) Frame {
		text := rapid.StringN(0, 16, maxText)
		u := rapid.Uint64()
		d := rapid.Custom(func(t *rapid.T) time.Duration { return time.Duration(rapid.Int64().Draw(t, "d")) })
		f := Frame{
			To: u.Draw(t, "to"), Ready: rapid.Bool().Draw(t, "ready"), Leaving: rapid.Bool().Draw(t, "leaving"), NodeID: text.Draw(t, "node"), Term: u.Draw(t, "term"), Leader: u.Draw(t, "leader"),
			AckIncarnation: u.Draw(t, "acki"), AckSeq: u.Draw(t, "acks"), Revision: u.Draw(t, "rev"), UpSince: d.Draw(t, "up"),
			Grant: d.Draw(t, "grant"), GrantIncarnation: u.Draw(t, "gi"), GrantSeq: u.Draw(t, "gs"), Held: u.Draw(t, "held"), OldTermAge: d.Draw(t, "age"),
		}
		for range rapid.IntRange(0, 6).Draw(t, "releases") {
			f.Releases = append(f.Releases, Release{Group: text.Draw(t, "group"), Epoch: u.Draw(t, "epoch"), Incarnation: u.Draw(t, "inc")})
		}
		for range rapid.IntRange(0, MaxDriver).Draw(t, "driver") {
			f.Driver = append(f.Driver, rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(t, "data"))
		}
		return f
	})
}

func pair(t testing.TB, from, to uint64) (*Sealer, *Opener) {
	t.Helper()
	s, err := NewSealer("c1", testKey, from, 77)
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOpener("c1", testKey, to)
	if err != nil {
		t.Fatal(err)
	}
	return s, o
}

func TestFramesComeThroughWhole(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s, o := pair(t, 5, 9)
		f := frames().Draw(rt, "frame")
		f.From, f.Incarnation, f.To = 5, 77, rapid.SampledFrom([]uint64{0, 9}).Draw(rt, "to")
		f.Seq = rapid.Uint64Min(1).Draw(rt, "seq")
		packet, err := s.Seal(nil, &f)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := o.Open(packet)
		if err != nil {
			rt.Fatal(err)
		}
		clear(packet) // the reader's buffer is used again
		if d := cmp.Diff(f, got); d != "" {
			rt.Fatal(d)
		}
	})
}

// Every field of Frame is in the bytes: this one fails for a new field that
// the codec doesn't know.
func TestNoFieldIsForgotten(t *testing.T) {
	var fill func(v reflect.Value)
	n := uint64(100)
	fill = func(v reflect.Value) {
		n++
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				fill(v.Field(i))
			}
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			fill(v.Index(0))
			fill(v.Index(1))
		case reflect.Uint64:
			v.SetUint(n)
		case reflect.Int64:
			v.SetInt(int64(n))
		case reflect.Uint8:
			v.SetUint(n % 256)
		case reflect.String:
			v.SetString(fmt.Sprint("text", n))
		case reflect.Bool:
			v.SetBool(true)
		default:
			t.Fatalf("the test can't fill a %s", v.Type())
		}
	}
	var f Frame
	fill(reflect.ValueOf(&f).Elem())
	f.From, f.Incarnation, f.To = 5, 77, 9
	s, o := pair(t, 5, 9)
	packet, err := s.Seal(nil, &f)
	if err != nil {
		t.Fatal(err)
	}
	got, err := o.Open(packet)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(f, got); d != "" {
		t.Fatal(d)
	}
}

func TestSealRefusesWhatWasChanged(t *testing.T) {
	s, o := pair(t, 5, 9)
	f := Frame{To: 9, Seq: 3, NodeID: "n1", Term: 4, Releases: []Release{{"g", 1, 2}}, Driver: [][]byte{{1, 2}}}
	packet, err := s.Seal(nil, &f)
	if err != nil {
		t.Fatal(err)
	}
	for i := range packet {
		for _, bit := range []byte{1, 128} {
			bad := bytes.Clone(packet)
			bad[i] ^= bit
			if _, err := o.Open(bad); err == nil {
				t.Fatalf("byte %d changed, and the frame was believed", i)
			}
		}
		if _, err := o.Open(packet[:i]); err == nil {
			t.Fatalf("cut to %d bytes, and believed", i)
		}
	}
	if _, err := o.Open(append(bytes.Clone(packet), 0)); err == nil {
		t.Fatal("longer, and believed")
	}
	if len(o.senders) != 0 {
		t.Fatal("forged frames left something behind")
	}
	if _, err := o.Open(packet); err != nil {
		t.Fatalf("the genuine one after the forged ones: %v", err)
	}
	for name, c := range map[string]struct {
		cluster string
		key     []byte
		self    uint64
		want    error
	}{
		"another cluster": {"c2", testKey, 9, ErrForeign},
		"another key":     {"c1", bytes.Repeat([]byte{8}, 32), 9, ErrSeal},
		"another server":  {"c1", testKey, 10, ErrTarget},
	} {
		o, err := NewOpener(c.cluster, c.key, c.self)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Open(packet); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := NewOpener("c1", testKey[:31], 9); err == nil {
		t.Error("a short key was taken")
	}
}

func TestEachFrameOnceAndSeqGrows(t *testing.T) {
	s, _ := pair(t, 5, 9)
	if _, err := s.Seal(nil, &Frame{Seq: 0}); !errors.Is(err, ErrSeq) {
		t.Fatalf("Seq 0: %v", err)
	}
	var packets [][]byte
	for seq := uint64(1); seq <= 300; seq++ {
		p, err := s.Seal(nil, &Frame{Seq: seq, To: 9})
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, p)
	}
	if _, err := s.Seal(nil, &Frame{Seq: 300}); !errors.Is(err, ErrSeq) {
		t.Fatalf("the same Seq again would use a nonce twice: %v", err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		_, o := pair(t, 5, 9)
		came := map[int]bool{}
		newest := -1
		for range rapid.IntRange(1, 200).Draw(rt, "n") {
			// Mostly near the newest, to meet the window's edges.
			i := max(0, min(299, newest+rapid.IntRange(-70, 20).Draw(rt, "at")))
			_, err := o.Open(packets[i])
			want := !came[i] && i > newest-64
			if (err == nil) != want {
				rt.Fatalf("frame %d, newest %d, came before %v: %v", i, newest, came[i], err)
			}
			came[i] = true
			newest = max(newest, i)
		}
	})
}

// A recording of older incarnations neither passes for the confirmed one nor
// pushes it out.
func TestOldIncarnationsDoNotDisplaceTheLiveOne(t *testing.T) {
	_, o := pair(t, 5, 9)
	var replays [][]byte
	for inc := range uint64(20) {
		s, err := NewSealer("c1", testKey, 5, 100+inc)
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Seal(nil, &Frame{Seq: 1, To: 9, AckIncarnation: 12345})
		if err != nil {
			t.Fatal(err)
		}
		replays = append(replays, p)
	}
	live, _ := pair(t, 5, 9)
	first, _ := live.Seal(nil, &Frame{Seq: 1, To: 9})
	if _, err := o.Open(first); err != nil {
		t.Fatal(err)
	}
	o.Confirm(5, 77)
	for range 3 {
		for _, p := range replays {
			if f, err := o.Open(p); err == nil && f.Incarnation == 77 {
				t.Fatal("a recording passed for the live incarnation")
			}
			if _, err := o.Open(first); !errors.Is(err, ErrReplay) {
				t.Fatalf("the live incarnation was forgotten: %v", err)
			}
		}
	}
	if n := len(o.senders[5].lives); n > maxIncarnations {
		t.Fatalf("%d incarnations remembered", n)
	}
	second, _ := live.Seal(nil, &Frame{Seq: 2, To: 9})
	if _, err := o.Open(second); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	_, o := pair(t, 5, 9)
	for from := range uint64(maxSenders + 50) {
		s, err := NewSealer("c1", testKey, 1000+from, 1)
		if err != nil {
			t.Fatal(err)
		}
		p, _ := s.Seal(nil, &Frame{Seq: 1})
		if _, err := o.Open(p); err != nil {
			t.Fatal(err)
		}
	}
	if len(o.senders) > maxSenders {
		t.Fatalf("%d senders remembered", len(o.senders))
	}
}

func TestManyReleasesTakeTurns(t *testing.T) {
	s, o := pair(t, 5, 9)
	f := Frame{To: 9}
	for i := range 100 {
		f.Releases = append(f.Releases, Release{Group: fmt.Sprintf("%016x", i), Epoch: 1 << 40, Incarnation: 1 << 63})
	}
	got := map[string]bool{}
	// Every second Seq goes to this server, as with two peers.
	for seq := uint64(2); len(got) < 100; seq += 2 {
		if seq > 200 {
			t.Fatalf("after 100 frames %d of 100 releases came", len(got))
		}
		f.Seq = seq
		p, err := s.Seal(nil, &f)
		if err != nil {
			t.Fatal(err)
		}
		if len(p) > MaxPacket {
			t.Fatalf("a packet of %d bytes", len(p))
		}
		in, err := o.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range in.Releases {
			got[r.Group] = true
		}
	}
	// Names as long as they may be, and a full load of driver messages.
	for i := range f.Releases {
		f.Releases[i].Group = fmt.Sprintf("%064x", i)
	}
	for range MaxDriver {
		f.Driver = append(f.Driver, make([]byte, 60))
	}
	f.Seq = 500
	if p, err := s.Seal(nil, &f); err != nil || len(p) > MaxPacket {
		t.Fatalf("a full frame: %d bytes, %v", len(p), err)
	} else if in, err := o.Open(p); err != nil || len(in.Releases) == 0 {
		t.Fatalf("a full frame: %d releases, %v", len(in.Releases), err)
	}
	f.Driver = [][]byte{make([]byte, MaxPacket)}
	f.Seq = 1000
	if _, err := s.Seal(nil, &f); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("a frame over the bound: %v", err)
	}
}

// The lease path leaves no garbage: it runs twenty times a second for each peer.
func TestFramesLeaveNoGarbage(t *testing.T) {
	key := make([]byte, 32)
	s, err := NewSealer("c", key, 1, 11)
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOpener("c", key, 2)
	if err != nil {
		t.Fatal(err)
	}
	out := Frame{From: 1, To: 2, NodeID: "n1", Releases: []Release{}, Driver: [][]byte{{1, 2, 3}, {4, 5, 6, 7}}}
	var in Frame
	var packet []byte
	n := testing.AllocsPerRun(100, func() {
		out.Seq++
		if packet, err = s.Seal(packet[:0], &out); err == nil {
			err = o.OpenTo(&in, packet)
		}
		if err != nil || in.Seq != out.Seq || in.NodeID != "n1" || len(in.Driver) != 2 || string(in.Driver[1]) != "\x04\x05\x06\x07" {
			t.Fatalf("got %+v, %v", in, err)
		}
		out.Driver[0], out.Driver[1] = out.Driver[1], out.Driver[0]
		if packet, err = s.Seal(packet[:0], &Frame{Seq: out.Seq + 1, NodeID: "n1"}); err == nil {
			err = o.OpenTo(&in, packet)
		}
		if out.Seq++; err != nil || len(in.Driver) != 0 { // nothing of the frame before shows
			t.Fatalf("got %+v, %v", in, err)
		}
		out.Driver[0], out.Driver[1] = out.Driver[1], out.Driver[0]
	})
	if n > 0 {
		t.Errorf("sealing and opening two frames allocates %.0f times", n)
	}
}

func FuzzParsePayload(f *testing.F) {
	good, _ := AppendPayload(nil, &Frame{To: 1, NodeID: "n", Releases: []Release{{"g", 1, 2}}, Driver: [][]byte{{1}, {}}})
	f.Add(good)
	f.Add([]byte{payloadVersion})
	f.Add(bytes.Repeat([]byte{0xff}, 200))
	f.Fuzz(func(t *testing.T, data []byte) {
		var in Frame
		if ParsePayload(data, &in) != nil {
			return
		}
		out, err := AppendPayload(nil, &in)
		if err != nil {
			if errors.Is(err, ErrTooLarge) {
				return
			}
			t.Fatal(err)
		}
		var again Frame
		if err := ParsePayload(out, &again); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(in, again); d != "" {
			t.Fatal(d)
		}
	})
}

func FuzzOpen(f *testing.F) {
	s, o := pair(f, 5, 9)
	good, _ := s.Seal(nil, &Frame{Seq: 1, To: 9})
	f.Add(good)
	f.Add([]byte(magic))
	f.Add(append([]byte(magic), o.cluster[:]...))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, o := pair(t, 5, 9)
		if got, err := o.Open(data); err == nil && !bytes.Equal(data, good) {
			t.Fatalf("a forged frame was believed: %+v", got)
		}
	})
}
