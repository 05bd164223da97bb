"use strict";

/* 8-bit volumes (Z, Y, X), kept in the page as pictures of many slices each. */
class Volume {
  constructor(packed, values) {
    this.shape = packed.shape;
    this.factor = packed.factor;
    this.values = values;
    const [across, down, right] = packed.order;
    this.strides = [0, 0, 0];
    this.strides[right] = 1;
    this.strides[down] = packed.shape[right];
    this.strides[across] = packed.shape[right] * packed.shape[down];
  }

  static async read(packed) {
    const [count, height, width] = packed.order.map((axis) => packed.shape[axis]);
    const values = new Uint8Array(count * height * width);
    const canvas = document.createElement("canvas");
    const context = canvas.getContext("2d", { willReadFrequently: true });
    for (let k = 0; k < packed.pictures.length; k++) {
      const picture = new Image();
      picture.src = packed.pictures[k];
      await picture.decode();
      canvas.width = picture.naturalWidth;
      canvas.height = picture.naturalHeight;
      context.drawImage(picture, 0, 0);
      const first = k * packed.tiles;
      for (let tile = first; tile < Math.min(count, first + packed.tiles); tile++) {
        const column = (tile - first) % packed.columns, row = Math.floor((tile - first) / packed.columns);
        const pixels = context.getImageData(column * width, row * height, width, height).data;
        const start = tile * height * width;
        for (let i = 0; i < height * width; i++) values[start + i] = pixels[4 * i];
      }
    }
    packed.pictures = [];
    canvas.width = canvas.height = 0;
    return new Volume(packed, values);
  }

  /* The slice that holds a voxel of the image: its codes, width, height, and voxels along its sides. */
  slice(plane, index) {
    const { across, rows, columns } = plane;
    const at = Math.min(Math.floor(index / this.factor[across]), this.shape[across] - 1);
    const height = this.shape[rows], width = this.shape[columns];
    const values = new Uint8Array(height * width);
    const down = this.strides[rows], right = this.strides[columns], start = at * this.strides[across];
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0, from = start + y * down; x < width; x++, from += right) values[i++] = this.values[from];
    }
    return { values, width, height, across: this.factor[columns], down: this.factor[rows] };
  }
}
