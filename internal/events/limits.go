package events

// Limits of the wire contract, in bytes unless the name says otherwise. They
// are compiled in: no peer and no option can raise them.
const (
	MaxPathBytes     = 4095      // PATH_MAX less its NUL
	MaxSegmentBytes  = 255       // NAME_MAX
	MaxTargetBytes   = 4095      // a symlink's target, as PATH_MAX
	MaxNameBytes     = 255       // an owner's or a group's name
	MaxInlineBytes   = 512 << 10 // a body that travels in its entry's message
	MaxDecodedBytes  = 1 << 20   // a decoded inline body, whoever sent it
	MaxWindowBytes   = 8 << 20   // a zstd decoder's window
	MaxHeaderBytes   = 60_000    // an encoded entry; the server's own limit is 65,535
	MaxSubjectBytes  = 200
	MaxSubjectTokens = 14
	MaxSiteBytes     = 32 // also a node's name
	MaxChunkBytes    = 4 << 20
	MaxChunks        = 1 << 19        // of one body
	MaxListBytes     = 80 * MaxChunks // a chunk list's text
	MaxBodyBytes     = 1 << 50        // a body, holes included
	minAverage       = 512 << 10      // of a body's chunks
	maxAverage       = MaxChunkBytes / 2
	maxTimeSec       = 1 << 40
)
