package libvirt

import "github.com/clusterplan/clusterplan/lang/spec"

// Modes of a network.
const (
	NetworkNAT      = "nat"      // out through the hypervisor's own address
	NetworkIsolated = "isolated" // between its machines and the hypervisor only
	NetworkBridge   = "bridge"   // machines are on a bridge that the hypervisor has
)

// Accelerators of a machine.
const (
	AcceleratorAuto = "auto" // kvm, or tcg where the guest doesn't come up under it
	AcceleratorKVM  = "kvm"
	AcceleratorTCG  = "tcg" // emulation
)

// Firmware of a machine.
const (
	FirmwareBIOS = "bios"
	FirmwareUEFI = "uefi"
)

// What a machine is waited for.
const (
	WaitSSH     = "ssh"     // an SSH server answers at its address
	WaitAddress = "address" // it has asked for its address
	WaitNone    = "none"
)

// fenceBlock is how the agents on machines have the hypervisor turn one off: the
// definition gets a fence of it for the nodes that no fence block covers.
func fenceBlock() spec.Block {
	return spec.Block{
		Name: "fence",
		Doc:  "How agents have the hypervisor turn off nodes on its machines that no fence block covers.",
		Attributes: []spec.Attribute{
			{Name: "enabled", Type: spec.TypeBool, Default: true, KnownAtPlan: true, Doc: "false: these nodes have no fence."},
			{Name: spec.FenceLibvirtURI, Type: spec.TypeString, KnownAtPlan: true, Doc: "The hypervisor as the machines reach it, as qemu+ssh://fencer@10.88.0.1/system; default: the provider's uri."},
			{Name: spec.FenceLibvirtKey, Type: spec.TypeString, KnownAtPlan: true, Sensitive: true, Doc: "The text of what agents log in with: an SSH key without passphrase, or the certificate's key."},
			{Name: spec.FenceLibvirtHostKey, Type: spec.TypeString, KnownAtPlan: true, Doc: "SSH: the hypervisor's host key, as ssh-ed25519 AAAA..., or its fingerprint SHA256:..."},
			{Name: spec.FenceLibvirtCert, Type: spec.TypeString, KnownAtPlan: true, Doc: "TLS: the client's certificate, in PEM."},
			{Name: spec.FenceLibvirtCA, Type: spec.TypeString, KnownAtPlan: true, Doc: "TLS: the authority's certificate, in PEM."},
			{Name: "when", Type: spec.TypeString, Default: spec.FenceNeeded, Values: []string{spec.FenceNeeded, spec.FenceAlways}, KnownAtPlan: true, Doc: "needed: only for groups that waiting does not free; always: for every group on a lost node, to be faster than the wait."},
			{Name: "delay", Type: spec.TypeDuration, Default: "0s", KnownAtPlan: true, Doc: "Waited before it is turned off; a node that is back by then is left alone."},
			{Name: "action", Type: spec.TypeString, Default: spec.FenceOff, Values: []string{spec.FenceOff, spec.FenceReboot}, KnownAtPlan: true, Doc: "off: the next apply starts it; reboot: off, verified, then on again."},
		},
	}
}

// networkSchema is the shape of a network block: what machines are attached to.
func networkSchema() spec.Schema {
	return spec.Schema{
		Name: "network",
		Doc:  "A network of virtual machines.",
		Attributes: []spec.Attribute{
			{Name: "mode", Type: spec.TypeString, Default: NetworkNAT, Values: []string{NetworkNAT, NetworkIsolated, NetworkBridge}, KnownAtPlan: true, Impact: spec.ImpactReplace,
				Doc: "nat: machines reach out through the hypervisor. isolated: each other and the hypervisor only. bridge: they are on a bridge that the hypervisor has already."},
			{Name: "subnet", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "nat and isolated: its addresses, as 10.88.0.0/24. The first one is the hypervisor's."},
			{Name: "subnet6", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "nat and isolated: IPv6 beside it, as fd88::/64. Machines work their addresses out themselves, from their MACs."},
			{Name: "bridge", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "bridge: the hypervisor's bridge, as br0."},
			{Name: "domain", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "nat and isolated: the DNS domain of its machines' names, as lab.test."},
			{Name: "dns", Type: spec.TypeBool, Default: true, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "nat and isolated: the hypervisor answers DNS on it, machines' names included."},
			{Name: "dhcp", Type: spec.TypeBool, Default: true, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "nat and isolated: the hypervisor gives each machine its address, always the same."},
			{Name: "autostart", Type: spec.TypeBool, Default: true, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "It comes up with the hypervisor."},
			{Name: "gateway", Type: spec.TypeString, Computed: true, Impact: spec.ImpactNone, Doc: "The hypervisor's address on it."},
			{Name: "gateway6", Type: spec.TypeString, Computed: true, Impact: spec.ImpactNone, Doc: "The hypervisor's IPv6 address on it."},
			{Name: "interface", Type: spec.TypeString, Computed: true, Impact: spec.ImpactNone, Doc: "The hypervisor's interface, as virbr1."},
		},
	}
}

// volumeSchema is the shape of a volume block: a disk that outlives machines.
func volumeSchema() spec.Schema {
	return spec.Schema{
		Name: "volume",
		Doc:  "A disk of virtual machines, which outlives them.",
		Attributes: []spec.Attribute{
			{Name: "pool", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "A storage pool that is there; default: the provider's own."},
			{Name: "size", Type: spec.TypeSize, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "As 10GiB; default: the image's. It can grow in place."},
			{Name: "image", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "A file of this machine that it begins as, qcow2 or raw; kept in the pool once for all volumes."},
			{Name: "image_digest", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "What the image must have, as sha256:...; another one is refused."},
			{Name: "path", Type: spec.TypeString, Computed: true, Impact: spec.ImpactNone, Doc: "Its file on the hypervisor."},
		},
	}
}

// machineSchema is the shape of a machine block.
func machineSchema() spec.Schema {
	return spec.Schema{
		Name: "machine",
		Doc:  "A virtual machine.",
		Attributes: []spec.Attribute{
			{Name: "memory", Type: spec.TypeSize, Default: "512MiB", KnownAtPlan: true, Impact: spec.ImpactReboot, Doc: "As 2GiB."},
			{Name: "vcpus", Type: spec.TypeNumber, Default: int64(1), KnownAtPlan: true, Impact: spec.ImpactReboot, Doc: "Processors."},
			{Name: "image", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "A file of this machine that its disk begins as, qcow2 or raw; kept in the pool once for all machines. Or kernel."},
			{Name: "image_digest", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "What the image must have, as sha256:...; another one is refused."},
			{Name: "disk_size", Type: spec.TypeSize, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "Of its own disk; default: the image's."},
			{Name: "kernel", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "A kernel's file of this machine, booted directly."},
			{Name: "initrd", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "Its initramfs."},
			{Name: "cmdline", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "Its command line."},
			{Name: "firmware", Type: spec.TypeString, Default: FirmwareBIOS, Values: []string{FirmwareBIOS, FirmwareUEFI}, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "bios or uefi."},
			{Name: "volumes", Type: spec.TypeVolumeRefs, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "Volumes that are its further disks; without image and kernel the first one boots."},
			{Name: "network", Type: spec.TypeNetworkRef, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "The network of its only interface. For more, and for an address of your choice: interface blocks."},
			{Name: "autostart", Type: spec.TypeBool, Default: false, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "It comes up with the hypervisor."},
			{Name: "accelerator", Type: spec.TypeString, Default: AcceleratorAuto, Values: []string{AcceleratorAuto, AcceleratorKVM, AcceleratorTCG}, KnownAtPlan: true, Impact: spec.ImpactReboot,
				Doc: "kvm, tcg (emulation, ten times as slow), or auto: kvm, and tcg where the hypervisor has none or the guest doesn't come up under it."},
			{Name: "wait_for", Type: spec.TypeString, Default: WaitSSH, Values: []string{WaitSSH, WaitAddress, WaitNone}, KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "When it counts as up: ssh: an SSH server answers at its address; address: it has asked for it; none: it runs."},
			{Name: "wait_timeout", Type: spec.TypeDuration, Default: "5m", KnownAtPlan: true, Impact: spec.ImpactNone, Doc: "How long it may take to come up; the error shows the last lines of its console."},
			{Name: "address", Type: spec.TypeString, Computed: true, Impact: spec.ImpactNone, Doc: "Of its first interface."},
			{Name: "addresses", Type: spec.TypeStrings, Computed: true, Impact: spec.ImpactNone, Doc: "Of its interfaces, in order."},
			{Name: "address6", Type: spec.TypeString, Computed: true, Impact: spec.ImpactNone, Doc: "IPv6, of its first interface, where the network has a subnet6."},
			{Name: "addresses6", Type: spec.TypeStrings, Computed: true, Impact: spec.ImpactNone, Doc: "IPv6, of its interfaces, in order."},
			{Name: "macs", Type: spec.TypeStrings, Computed: true, Impact: spec.ImpactNone, Doc: "Of its interfaces, in order."},
			{Name: "uuid", Type: spec.TypeString, Computed: true, Impact: spec.ImpactNone, Doc: "The hypervisor's id of it."},
			{Name: "ssh_host_key", Type: spec.TypeString, Computed: true, Impact: spec.ImpactNone,
				Doc: "The public key that its SSH server shows (ssh-ed25519 AAAA...): made with it and given by cloud-init, so that a node's ssh block can check it. None with cloud_init.user_data of your own."},
			{Name: "console", Type: spec.TypeString, Computed: true, Impact: spec.ImpactNone, Doc: "The file on the hypervisor that holds what its console said."},
		},
		Blocks: []spec.Block{
			{Name: "interface", Repeated: true, Doc: "A network interface, in this order.", Attributes: []spec.Attribute{
				{Name: "network", Type: spec.TypeNetworkRef, Required: true, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "The network that it is on."},
				{Name: "address", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "Its address in the network's subnet; default: a free one, which it keeps."},
				{Name: "mac", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "As 52:54:00:12:34:56; default: one that follows from the machine."},
			}},
			{Name: "cloud_init", Doc: "What cloud-init finds in a machine that boots from an image; a first boot reads it.", Attributes: []spec.Attribute{
				{Name: "enabled", Type: spec.TypeBool, Default: true, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "false: it finds nothing."},
				{Name: "user", Type: spec.TypeString, Default: "root", KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "Who may log in with the keys."},
				{Name: "ssh_authorized_keys", Type: spec.TypeStrings, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "Public keys; default: the provider's ssh_public_key_file."},
				{Name: "user_data", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "In place of what follows from user and keys: a #cloud-config or a script."},
				{Name: "network_config", Type: spec.TypeString, KnownAtPlan: true, Impact: spec.ImpactReplace, Doc: "In place of DHCP on every interface: version 2 of cloud-init's format."},
			}},
		},
	}
}
