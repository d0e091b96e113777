/* Decodes a crop of a JPEG: libjpeg-turbo leaves out the rows and columns that are not asked for. Called by jpeg.py. */

#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

enum { DECODED = 0, LEFT_TO_OTHERS = 1 };

/* Chroma is interpolated between neighbours; at the edge of what is decoded a column has only one. */
enum { MARGIN = 2 };

struct errors {
  struct jpeg_error_mgr base;
  jmp_buf give_up;
};

static void give_up(j_common_ptr info) {
  longjmp(((struct errors *)info->err)->give_up, 1);
}

/* A warning says that data is damaged, and then somebody else has to find the words for it. */
static void give_up_at_warning(j_common_ptr info, int level) {
  if (level < 0) give_up(info);
}

/* Whether the image's end was seen or follows, ahead of any other marker. */
static int ends(struct jpeg_decompress_struct *info) {
  const unsigned char *at = info->src->next_input_byte, *end = at + info->src->bytes_in_buffer;
  int marker = info->unread_marker;
  if (jpeg_input_complete(info)) return 1;
  while (marker == 0 || marker == 0xff) {
    at = at < end ? memchr(at, 0xff, end - at) : NULL;
    if (at == NULL || at + 1 == end) return 0;
    marker = *++at;
  }
  return marker == JPEG_EOI;
}

/* Decodes some more below a crop that ends at `bottom`: no less than who decodes without this reader, since all that is
   damaged there is for him to judge. He leaves out what follows, unless there are restart markers. */
static void look_on(struct jpeg_decompress_struct *info, int bottom, JSAMPARRAY row) {
  int height = info->output_height, last = info->restart_interval || height - bottom < 6 ? height : bottom + 6;
  JDIMENSION skipped = last - 1 - bottom;
  if (last == bottom) return;
  if ((skipped > 0 && jpeg_skip_scanlines(info, skipped) != skipped) || jpeg_read_scanlines(info, row, 1) != 1)
    give_up((j_common_ptr)info);
}

/* Writes rows top..top+height and columns left..left+width of the image at 1/shrink of its size, as RGB, no gaps. */
int decode_crop(const unsigned char *data, size_t size, int shrink, int top, int left, int height, int width,
                unsigned char *pixels) {
  struct jpeg_decompress_struct info;
  struct errors errors;
  JDIMENSION start, count;
  JSAMPARRAY row;
  int line;

  info.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = give_up;
  errors.base.emit_message = give_up_at_warning;
  if (setjmp(errors.give_up)) {
    jpeg_destroy_decompress(&info);
    return LEFT_TO_OTHERS;
  }
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, data, size);
  jpeg_read_header(&info, TRUE);
  info.scale_num = 1;
  info.scale_denom = shrink;
  info.out_color_space = JCS_RGB; /* an error for CMYK */
  jpeg_start_decompress(&info);
  if (top < 0 || left < 0 || height < 1 || width < 1 || top > (int)info.output_height - height ||
      left > (int)info.output_width - width)
    give_up((j_common_ptr)&info);

  start = left > MARGIN ? left - MARGIN : 0;
  count = left + width + MARGIN < (int)info.output_width ? left + width + MARGIN - start : info.output_width - start;
  jpeg_crop_scanline(&info, &start, &count); /* moves the start left, to where it can begin */
  row = info.mem->alloc_sarray((j_common_ptr)&info, JPOOL_IMAGE, count * 3 + 1, 1);
  row[0]++; /* not aligned: to aligned memory libjpeg-turbo writes past the caches, out of which we read */
  if (top > 0 && jpeg_skip_scanlines(&info, top) != (JDIMENSION)top) give_up((j_common_ptr)&info);
  for (line = 0; line < height; line++) {
    if (jpeg_read_scanlines(&info, row, 1) != 1) give_up((j_common_ptr)&info);
    memcpy(pixels + (size_t)line * width * 3, row[0] + (left - start) * 3, (size_t)width * 3);
  }
  look_on(&info, top + height, row);
  if (!ends(&info)) give_up((j_common_ptr)&info);
  jpeg_destroy_decompress(&info);
  return DECODED;
}
