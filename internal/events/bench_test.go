package events_test

import (
	"testing"

	"treecast/internal/events"
)

func BenchmarkMarshalHeader(b *testing.B) {
	e := anEntry(b, events.File)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.MarshalHeader(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseEntry(b *testing.B) {
	e := anEntry(b, events.File)
	header, err := e.MarshalHeader()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := events.ParseEntry(header); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSubject(b *testing.B) {
	p := mustPath(b, "wp-content/uploads/2024/05/holiday-photo.jpg")
	b.ReportAllocs()
	for b.Loop() {
		if events.Site("web").Subject(p) == "" {
			b.Fatal("no subject")
		}
	}
}

func BenchmarkCompress(b *testing.B) {
	c := newCodec(b)
	body := text(4 << 10)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if len(c.Compress(body)) == 0 {
			b.Fatal("no frame")
		}
	}
}

func BenchmarkBody(b *testing.B) {
	c := newCodec(b)
	body := text(4 << 10)
	e, frame := fileOf(b, body), c.Compress(body)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := c.Body(e, frame, nil); err != nil {
			b.Fatal(err)
		}
	}
}
