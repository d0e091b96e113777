"""What happens to images: `host` one at a time before the copy to the device, `batch` a batch at a time after it."""
