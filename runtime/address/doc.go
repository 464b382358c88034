// Package address holds added IP addresses in the kernel so that they vanish
// with this process, however it ends, and makes the neighbours on the link
// learn where they are.
//
//	h := address.New(log)
//	held, err := h.Hold(ctx, address.Request{Address: a})  // it answers on the link
//	... held.Lost(), held.Check() ...
//	held.Release()                                         // it is gone, as read back
//
// # Why a TUN device
//
// An address on an ordinary interface outlives the process that added it, and
// then two nodes have it. Here the addresses (/32 and /128) lie on one TUN device
// a process, which the kernel removes, with all its addresses, when its
// descriptor is closed. So the dead man's timer of the monitor holds addresses
// as it holds programs, with nothing to renew. The other way, an nftables set
// element that expires, would cost a system call at each renewal of the lease,
// leave the address itself behind, and count in another clock.
//
// The descriptor is in a table of its own, of one thread that does nothing else
// (tun.go): no program that is started can inherit it, and it is closed as soon
// as that thread dies, though another of the process hangs in a disk.
//
// # How neighbours find it
//
// IPv4: the kernel answers ARP for an address of any of its devices, with the
// address of the link that is asked on; where arp_ignore forbids that, Hold
// answers itself. IPv6: the kernel answers solicitations only for addresses of
// that very link, so Hold joins the solicited-node group and answers itself,
// as long as the process lives.
//
// Before it is added the address is probed for (probe.go); whoever answers is
// named in the error. Then neighbours are told, at once and five times more over
// ten seconds (announce.go), so that what they remember of the last owner goes.
//
// Needs /dev/net/tun, CAP_NET_ADMIN and CAP_NET_RAW. Nobody reads the TUN: what
// the kernel routes into it, which is nothing, it drops.
package address
