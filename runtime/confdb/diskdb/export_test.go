package diskdb

// AreaRoom is what the smallest area has room for.
const AreaRoom = areaLeast - farthest

// Header is the block of a device that a server has formatted.
func Header(cluster string, founder uint64) []byte {
	return header{device: 77, founder: founder, area: areaMost, cluster: cluster}.encode()
}
