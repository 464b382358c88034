package diskdb

// AreaRoom is what the smallest area has room for.
const AreaRoom = areaLeast - farthest
