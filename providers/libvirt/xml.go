package libvirt

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
)

// What of libvirt's XML is written and read here: libvirt's own Go types for
// all of it would make the program half a megabyte bigger. What is read and
// written back, as a machine's memory, goes through calls that leave the rest
// of the XML alone.

type (
	xmlNetwork struct {
		XMLName xml.Name    `xml:"network"`
		Name    string      `xml:"name"`
		UUID    string      `xml:"uuid,omitempty"`
		Forward *xmlForward `xml:"forward"`
		Bridge  *xmlBridge  `xml:"bridge"`
		Domain  *xmlDomain  `xml:"domain"`
		DNS     *xmlDNS     `xml:"dns"`
		IPs     []xmlIP     `xml:"ip"`
	}
	xmlForward struct {
		Mode string  `xml:"mode,attr,omitempty"`
		NAT  *xmlNAT `xml:"nat"`
	}
	xmlNAT struct {
		IPv6 string `xml:"ipv6,attr,omitempty"`
	}
	xmlBridge struct {
		Name  string `xml:"name,attr,omitempty"`
		STP   string `xml:"stp,attr,omitempty"`
		Delay string `xml:"delay,attr,omitempty"`
	}
	xmlDomain struct {
		Name      string `xml:"name,attr"`
		LocalOnly string `xml:"localOnly,attr,omitempty"`
	}
	xmlDNS struct {
		Enable string `xml:"enable,attr,omitempty"`
	}
	xmlIP struct {
		Family  string   `xml:"family,attr,omitempty"`
		Address string   `xml:"address,attr"`
		Netmask string   `xml:"netmask,attr,omitempty"`
		Prefix  string   `xml:"prefix,attr,omitempty"`
		DHCP    *xmlDHCP `xml:"dhcp"`
	}
	xmlDHCP struct {
		Ranges []xmlRange `xml:"range"`
		Hosts  []xmlHost  `xml:"host"`
	}
	xmlRange struct {
		Start string `xml:"start,attr"`
		End   string `xml:"end,attr"`
	}
	xmlHost struct {
		XMLName xml.Name `xml:"host"`
		MAC     string   `xml:"mac,attr,omitempty"`
		Name    string   `xml:"name,attr,omitempty"`
		IP      string   `xml:"ip,attr"`
	}
)

type (
	xmlPool struct {
		XMLName xml.Name  `xml:"pool"`
		Type    string    `xml:"type,attr"`
		Name    string    `xml:"name"`
		UUID    string    `xml:"uuid,omitempty"`
		Target  xmlTarget `xml:"target"`
	}
	xmlVolume struct {
		XMLName    xml.Name     `xml:"volume"`
		Name       string       `xml:"name"`
		Key        string       `xml:"key,omitempty"`
		Capacity   *xmlBytes    `xml:"capacity"`
		Allocation *xmlBytes    `xml:"allocation"`
		Target     xmlTarget    `xml:"target"`
		Backing    *xmlBackFile `xml:"backingStore"`
	}
	xmlBytes struct {
		Unit  string `xml:"unit,attr,omitempty"`
		Value int64  `xml:",chardata"`
	}
	xmlTarget struct {
		Path        string          `xml:"path,omitempty"`
		Format      *xmlFormat      `xml:"format"`
		Permissions *xmlPermissions `xml:"permissions"`
	}
	xmlFormat struct {
		Type string `xml:"type,attr"`
	}
	xmlPermissions struct {
		Mode string `xml:"mode,omitempty"`
	}
	xmlBackFile struct {
		Path   string     `xml:"path"`
		Format *xmlFormat `xml:"format"`
	}
)

type (
	xmlMachine struct {
		XMLName  xml.Name     `xml:"domain"`
		Type     string       `xml:"type,attr"`
		Name     string       `xml:"name"`
		UUID     string       `xml:"uuid,omitempty"`
		Metadata *xmlMetadata `xml:"metadata"`
		Memory   xmlMemory    `xml:"memory"`
		VCPU     int          `xml:"vcpu"`
		OS       xmlOS        `xml:"os"`
		Features *xmlFeatures `xml:"features"`
		CPU      *xmlCPU      `xml:"cpu"`
		Clock    *xmlClock    `xml:"clock"`
		Reboot   string       `xml:"on_reboot,omitempty"`
		Crash    string       `xml:"on_crash,omitempty"`
		Devices  xmlDevices   `xml:"devices"`
	}
	xmlMetadata struct {
		Owner *xmlOwner `xml:"https://clusterplan.github.io/libvirt/1 machine"`
	}
	xmlOwner struct {
		ID    string `xml:"id,attr"`
		Addr  string `xml:"address,attr"`
		Value string `xml:"value"` // as the definition had it, JSON
		Up    bool   `xml:"up"`    // it has come up once
		Accel string `xml:"accel"` // what accelerator = "auto" has found
		Key   string `xml:"key"`   // the public key of its SSH server, where cloud-init gave it one
	}
	xmlMemory struct {
		Unit  string `xml:"unit,attr,omitempty"`
		Value int64  `xml:",chardata"`
	}
	xmlOS struct {
		Firmware string    `xml:"firmware,attr,omitempty"`
		Type     xmlOSType `xml:"type"`
		Features *xmlUEFI  `xml:"firmware"`
		Loader   *xmlText  `xml:"loader"`
		Kernel   string    `xml:"kernel,omitempty"`
		Initrd   string    `xml:"initrd,omitempty"`
		Cmdline  string    `xml:"cmdline,omitempty"`
		Boot     []xmlDev  `xml:"boot"`
	}
	xmlUEFI struct {
		Features []xmlUEFIFeature `xml:"feature"`
	}
	xmlUEFIFeature struct {
		Enabled string `xml:"enabled,attr"`
		Name    string `xml:"name,attr"`
	}
	xmlOSType struct {
		Arch    string `xml:"arch,attr,omitempty"`
		Machine string `xml:"machine,attr,omitempty"`
		Value   string `xml:",chardata"`
	}
	xmlText struct {
		Value string `xml:",chardata"`
	}
	xmlDev struct {
		Dev string `xml:"dev,attr"`
	}
	xmlEmpty    struct{}
	xmlFeatures struct {
		ACPI *xmlEmpty `xml:"acpi"`
		APIC *xmlEmpty `xml:"apic"`
	}
	xmlCPU struct {
		Mode string `xml:"mode,attr,omitempty"`
	}
	xmlClock struct {
		Offset string `xml:"offset,attr"`
	}
	xmlDevices struct {
		Disks      []xmlDisk      `xml:"disk"`
		Interfaces []xmlInterface `xml:"interface"`
		Serials    []xmlSerial    `xml:"serial"`
		Consoles   []xmlConsole   `xml:"console"`
		RNG        *xmlRNG        `xml:"rng"`
		Balloon    *xmlModel      `xml:"memballoon"`
	}
	xmlDisk struct {
		Type     string     `xml:"type,attr"`
		Device   string     `xml:"device,attr"`
		Driver   *xmlDriver `xml:"driver"`
		Source   xmlSource  `xml:"source"`
		Target   xmlDiskDev `xml:"target"`
		ReadOnly *xmlEmpty  `xml:"readonly"`
	}
	xmlDriver struct {
		Name string `xml:"name,attr,omitempty"`
		Type string `xml:"type,attr,omitempty"`
	}
	xmlSource struct {
		File    string `xml:"file,attr,omitempty"`
		Dev     string `xml:"dev,attr,omitempty"`
		Name    string `xml:"name,attr,omitempty"`
		Network string `xml:"network,attr,omitempty"`
		Bridge  string `xml:"bridge,attr,omitempty"`
		Path    string `xml:"path,attr,omitempty"`
	}
	xmlDiskDev struct {
		Dev string `xml:"dev,attr"`
		Bus string `xml:"bus,attr,omitempty"`
	}
	xmlInterface struct {
		Type   string    `xml:"type,attr"`
		MAC    xmlAddr   `xml:"mac"`
		Source xmlSource `xml:"source"`
		Model  *xmlModel `xml:"model"`
		ROM    *xmlROM   `xml:"rom"`
	}
	xmlROM struct {
		Enabled string `xml:"enabled,attr"`
	}
	xmlAddr struct {
		Address string `xml:"address,attr"`
	}
	xmlModel struct {
		Type  string `xml:"type,attr,omitempty"`
		Model string `xml:"model,attr,omitempty"`
	}
	xmlSerial struct {
		Type   string   `xml:"type,attr"`
		Log    *xmlLog  `xml:"log"`
		Target *xmlPort `xml:"target"`
	}
	xmlLog struct {
		File   string `xml:"file,attr"`
		Append string `xml:"append,attr,omitempty"`
	}
	xmlConsole struct {
		Type   string   `xml:"type,attr"`
		Target *xmlPort `xml:"target"`
	}
	xmlPort struct {
		Type string `xml:"type,attr,omitempty"`
		Port string `xml:"port,attr"`
	}
	xmlRNG struct {
		Model   string     `xml:"model,attr"`
		Backend xmlBackend `xml:"backend"`
	}
	xmlBackend struct {
		Model string `xml:"model,attr"`
		Value string `xml:",chardata"`
	}
)

func toXML(v any) (string, error) {
	b, err := xml.Marshal(v)
	return string(b), err
}

func fromXML(text string, v any) error {
	if err := xml.NewDecoder(strings.NewReader(text)).Decode(v); err != nil {
		return fmt.Errorf("read libvirt's XML: %w", err)
	}
	return nil
}

// bytes is a libvirt quantity in bytes.
func (m xmlMemory) bytes() int64 { return m.Value * unitBytes(m.Unit, 1024) }

func (b *xmlBytes) bytes() int64 {
	if b == nil {
		return 0
	}
	return b.Value * unitBytes(b.Unit, 1)
}

// accelerator is what the machine runs with; "": a driver that runs nothing.
func (m *xmlMachine) accelerator() string {
	return map[string]string{"kvm": AcceleratorKVM, "qemu": AcceleratorTCG}[m.Type]
}

// xmlCapabilities are what a hypervisor can do for a machine.
type xmlCapabilities struct {
	Arch string `xml:"arch"`
	OS   struct {
		Enums []struct {
			Name   string   `xml:"name,attr"`
			Values []string `xml:"value"`
		} `xml:"enum"`
	} `xml:"os"`
}

func (c *xmlCapabilities) has(enum, value string) bool {
	for _, e := range c.OS.Enums {
		if e.Name == enum && slices.Contains(e.Values, value) {
			return true
		}
	}
	return false
}

func unitBytes(unit string, none int64) int64 {
	switch unit {
	case "b", "bytes":
		return 1
	case "k", "KiB":
		return 1 << 10
	case "M", "MiB":
		return 1 << 20
	case "G", "GiB":
		return 1 << 30
	case "T", "TiB":
		return 1 << 40
	}
	return none
}
