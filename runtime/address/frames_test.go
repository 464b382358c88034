package address

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"
)

var (
	macA = net.HardwareAddr{2, 0, 0, 0, 0, 0xa}
	macB = net.HardwareAddr{2, 0, 0, 0, 0, 0xb}
	v4   = netip.MustParseAddr("10.0.0.5")
	v6   = netip.MustParseAddr("fd00::12:3456")
	host = netip.MustParseAddr("fd00::1")
)

// The frames, byte by byte, as RFC 826 and RFC 4861 have them; checksums by
// another program.
func TestFrames(t *testing.T) {
	s4 := &speaker{link: link{mac: macA}, addr: v4}
	s6 := &speaker{link: link{mac: macA}, addr: v6}
	l := link{mac: macA}
	for _, tt := range []struct {
		name string
		got  []byte
		want string
	}{
		{"ARP probe", l.probeFrame(v4), "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001 02000000000a 00000000 000000000000 0a000005"},
		{"gratuitous request", s4.frames()[0], "ffffffffffff 02000000000a 0806 0001 0800 06 04 0001 02000000000a 0a000005 000000000000 0a000005"},
		{"gratuitous reply", s4.frames()[1], "ffffffffffff 02000000000a 0806 0001 0800 06 04 0002 02000000000a 0a000005 ffffffffffff 0a000005"},
		{"neighbour probe", l.probeFrame(v6), "3333ff123456 02000000000a 86dd 60000000 0018 3a ff 00000000000000000000000000000000 ff0200000000000000000001ff123456 87 00 14d7 00000000 fd000000000000000000000000123456"},
		{"unsolicited advertisement", s6.frames()[0], "333300000001 02000000000a 86dd 60000000 0020 3a ff fd000000000000000000000000123456 ff020000000000000000000000000001 88 00 f1c3 20000000 fd000000000000000000000000123456 02 01 02000000000a"},
	} {
		if got, want := hex.EncodeToString(tt.got), strings.ReplaceAll(tt.want, " ", ""); got != want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, want)
		}
	}
}

// Who asks gets an answer, who tells doesn't; who claims the address is seen.
func TestReplies(t *testing.T) {
	s4 := &speaker{link: link{mac: macA}, addr: v4}
	s6 := &speaker{link: link{mac: macA}, addr: v6, router: true}
	client := netip.MustParseAddr("10.0.0.9")
	ask4 := arp{op: arpRequest, sender: macB, senderIP: client, target: make(net.HardwareAddr, 6), targetIP: v4, toHardware: broadcast}
	ask6 := discovery{kind: neighbourSolicitation, fromHardware: macB, toHardware: multicast(solicitedNode(v6)), from: host, to: solicitedNode(v6), target: v6, link: macB}
	reply4, ok := readARP(s4.reply(ask4.frame()))
	if !ok || reply4.op != arpReply || reply4.senderIP != v4 || reply4.targetIP != client || !bytes.Equal(reply4.sender, macA) || !bytes.Equal(reply4.toHardware, macB) {
		t.Errorf("to an ARP request: %+v", reply4)
	}
	reply6, ok := readDiscovery(s6.reply(ask6.frame()))
	if !ok || reply6.kind != neighbourAdvertisement || reply6.flags != flagSolicited|flagOverride|flagRouter || reply6.to != host || reply6.target != v6 || !bytes.Equal(reply6.link, macA) || !bytes.Equal(reply6.toHardware, macB) {
		t.Errorf("to a solicitation: %+v", reply6)
	}
	probe6 := ask6
	probe6.from, probe6.link = netip.IPv6Unspecified(), nil
	if r, ok := readDiscovery(s6.reply(probe6.frame())); !ok || r.to != allNodes || r.flags&flagSolicited != 0 {
		t.Errorf("to a probe: %+v", r)
	}
	other4, other6 := ask4, ask6
	other4.targetIP, other6.target = client, host
	tell4 := ask4
	tell4.op = arpReply
	for name, frame := range map[string][]byte{"another address": other4.frame(), "a reply": tell4.frame(), "our own": s4.frames()[0], "another address, IPv6": other6.frame(), "our own, IPv6": s6.frames()[0]} {
		if s4.reply(frame) != nil || s6.reply(frame) != nil {
			t.Errorf("%s is answered", name)
		}
	}
	damaged := ask6.frame()
	damaged[70] ^= 1
	if s6.reply(damaged) != nil {
		t.Error("a damaged solicitation is answered")
	}

	far := ask6.frame()
	far[etherSize+7] = 64 // a router passed it on
	for name, tt := range map[string]struct {
		frame []byte
		a     netip.Addr
		want  net.HardwareAddr
	}{
		"who announces":       {s4.frames()[0], v4, macA},
		"who answers":         {reply4.frame(), v4, macA},
		"who probes as well":  {link{mac: macB}.probeFrame(v4), v4, macB},
		"who asks":            {ask4.frame(), v4, nil},
		"who is another":      {s4.frames()[0], client, nil},
		"who advertises":      {reply6.frame(), v6, macA},
		"who solicits":        {ask6.frame(), v6, nil},
		"who probes, IPv6":    {probe6.frame(), v6, macB},
		"who is not the link": {far, v6, nil},
	} {
		if got := claimant(tt.frame, tt.a); !bytes.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// Whatever comes, reading it ends well; what was read and is written again is
// read as the same.
func FuzzFrames(f *testing.F) {
	s4, s6 := &speaker{link: link{mac: macA}, addr: v4}, &speaker{link: link{mac: macA}, addr: v6}
	for _, b := range [][]byte{s4.frames()[0], s6.frames()[0], link{mac: macB}.probeFrame(v4), link{mac: macB}.probeFrame(v6), {}} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, ok := readARP(b); ok {
			again, ok := readARP(m.frame())
			if !ok || again.senderIP != m.senderIP || again.targetIP != m.targetIP || again.op != m.op {
				t.Errorf("%+v, then %+v", m, again)
			}
		}
		if m, ok := readDiscovery(b); ok {
			again, ok := readDiscovery(m.frame())
			if !ok || again.target != m.target || again.from != m.from || !bytes.Equal(again.link, m.link) {
				t.Errorf("%+v, then %+v", m, again)
			}
		}
		_, _ = s4.reply(b), s6.reply(b)
		_, _ = claimant(b, v4), claimant(b, v6)
	})
}
